"""Experiment files of the original work, and flat blocks of the same keys, translated into the project's layout.

A ``target`` names an entry of the tables below. It is compared as text and never imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdm4mi.config import fields
from cdm4mi.config.tree import COMMAND_LINE, Assignment, Tree, put
from cdm4mi.config.yaml_text import shown
from cdm4mi.errors import UserError

LOADERS = "diffusion_modules.diffusion_utils.dataloader"
MODELS = ("models.ddpm_conditioned.ConditionDDPM", "models.ddpm_st_diffusion.DDPM")
UNCONDITIONED = MODELS[1]
DATASETS = {
    f"{LOADERS}.load_brain_hdf5": "hdf5",
    f"{LOADERS}.load_berea_hdf5": "hdf5",
    f"{LOADERS}.load_ixi": "volumes",
    f"{LOADERS}.load_ixi_sr": "volumes",
    f"{LOADERS}.load_fastmri": "volumes",
}
SUPER_RESOLUTION = f"{LOADERS}.load_ixi_sr"
UNETS = (
    "diffusion_modules.unet_arch.unet_rosinality.Unet",
    "diffusion_modules.unet_arch.unet_rosinality_dilated.Unet",
)

UNET: fields.Path = ("model", "unet_rosinality_config")
BETA_SCHEDULE: fields.Path = ("model", "beta_schedule")
IMAGE_SIZE: fields.Path = ("model", "image_size")
NOISE: fields.Path = ("data", "noise")
RENAMED: dict[str, fields.Path] = {
    "image_dir": ("data", "paths"),
    "target_size": ("data", "resize"),
    "noise_type": (*NOISE, "type"),
    "num_of_train_samples": ("data", "train_slices"),
    "num_of_val_samples": ("data", "val_patches"),
    "warmup_steps": ("training", "warmup"),
    "clip_denoised": ("sampling", "clip"),
    "gradient_clip_val": ("training", "gradient_clip"),
    "accumulate_grad_batches": ("training", "accumulate"),
}
DATASET_KEYS: dict[str, fields.Path] = {
    "image_dir": RENAMED["image_dir"],
    "noise_type": RENAMED["noise_type"],
    "variance": (*NOISE, "variance"),
    "dynamic_range": ("data", "dynamic_range"),
}
SUPER_RESOLUTION_KEYS: dict[str, fields.Path] = {
    "image_dir": RENAMED["image_dir"],
    "scale_factor": (*NOISE, "factor"),
    "dynamic_range": ("data", "dynamic_range"),
}

NOISE_TYPES: dict[str, dict[str, str]] = {
    "s&p": {"type": "salt_and_pepper", "extremes": "both"},
    "salt": {"type": "salt_and_pepper", "extremes": "salt"},
    "pepper": {"type": "salt_and_pepper", "extremes": "pepper"},
}
"""Values of noise_type that have another name here; gaussian and speckle are the same."""

IGNORED = {
    "log_every_t": "picture_every and log_every say what is logged",
    "monitor": "checkpoints are kept by validation loss",
    "first_stage_key": "there is one kind of batch",
    "epochs": "max_tsteps says how long to train",
    "train_percent_check": "the original code never used it",
    "logvar_init": "no variance is learnt",
}
"""Keys without a meaning here, and why: left out, with a notice."""

NEUTRAL: dict[str, Any] = {
    "cond": None,
    "ckpt_path": None,
    "scheduler_config": None,
    "unet_config": None,
    "modified_unet_config": None,
    "openai_unet_config": None,
    "lr_scheduler": False,
    "learn_logvar": False,
    "use_positional_encodings": False,
    "v_posterior": 0,
    "original_elbo_weight": 0,
    "l_simple_weight": 1,
}
"""Keys of the original code that are not supported: they load with the value that turns them off, and no other."""

SPECIAL = ("dataset", "given_betas", *RENAMED, *IGNORED, *NEUTRAL)
"""Names of a block that are no key of the project's layout."""
BETA_SCHEDULES = {"linear": ("beta", "sqrt_linear"), "sqrt_linear": ("the square root of beta", "linear")}
"""What a line is drawn in here, and the schedule that the original code called by the name."""

EARLIER = {"training": {"detail": "neighbour_std"}}
"""Keys that checkpoints of earlier versions, the shipped one among them, have under another name."""


def with_present_names(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the project's layout whose keys have the names of this version."""
    return {
        name: {EARLIER[name].get(key, key): item for key, item in value.items()}
        if name in EARLIER and isinstance(value, Mapping)
        else value
        for name, value in mapping.items()
    }


def is_legacy(mapping: Mapping[str, Any]) -> bool:
    """Whether this is an experiment file (``model`` holds ``target`` or ``params``), or holds bare names only."""
    return _is_experiment(mapping) or not any(name in mapping for name in _sections())


def translate(mapping: Mapping[str, Any], overrides: Iterable[tuple[str, Any]], where: str) -> tuple[Tree, list[str]]:
    """Such a file in the project's layout, under the overrides (key, value), and the notices for the user.

    An override is a path as in the file, a bare name of a block, or a key of the project's layout.

    Raises:
        UserError: unknown ``target`` or key, or a key with a meaning that is not supported.
    """
    raw, others = dict(mapping), []
    in_file = []
    for key, value in overrides:
        top, *below = key.split(".")
        if below and isinstance(mapping.get(top), Mapping) and not fields.matches(key):
            put(raw, (top, *below), value)
            in_file.append(key)
        else:
            others.append((key, value))
    changed = [key.split(".")[-1] for key, _ in others]
    file = _Translation(where, IMAGE_SIZE[-1] in changed)
    (file.experiment if _is_experiment(raw) else file.block)(raw)
    file.settle_noise()
    tree = Tree()
    for path, value, name in file.assignments():
        overridden = any(name == key or name.startswith(f"{key}.") for key in in_file)
        tree.assign(path, value, COMMAND_LINE if overridden else where, name)
    line: list[Assignment] = []
    notices = file.notices
    for key, value in others:
        if key in SPECIAL:
            one = _Translation(COMMAND_LINE, file.sized)
            one.block({key: value})
            line += one.assignments()
            notices += one.notices
        else:
            line.append((fields.find(key, COMMAND_LINE, SPECIAL), value, key))
    tree.override(line)
    if _is_experiment(raw) and tree.origins.get(BETA_SCHEDULE, (where,))[0] != COMMAND_LINE:
        notices += _schedule_notice(file.found.get(BETA_SCHEDULE, ("linear", ""))[0])
    return tree, notices


class _Translation:
    """Keys of the project's layout with the values and names that a file has for them; ``notices``: what is left out.

    sized: whether an image_size is given, so that a target_size does not say it.
    """

    def __init__(self, where: str, sized: bool) -> None:
        self.where, self.sized = where, sized
        self.found: dict[fields.Path, tuple[Any, str]] = {}
        self.notices: list[str] = []

    def assignments(self) -> list[Assignment]:
        return [(path, value, name) for path, (value, name) in self.found.items()]

    def add(self, path: fields.Path, value: Any, name: str) -> None:
        """Two names for one key in the same file are a mistake."""
        if path in self.found:
            raise UserError(f"{self.where}: {name}: also given as {self.found[path][1]}, expected one of them")
        self.found[path] = (value, name)

    def experiment(self, mapping: Mapping[str, Any]) -> None:
        """An experiment file, beside whose ``model`` sections of the project's layout may stand."""
        top = [name for (name, *below) in fields.table() if not below]
        self.check_keys(mapping, top, "")
        target, params, at = self.target_and_params(mapping["model"], MODELS, "model")
        self.block(params, at)
        if target == UNCONDITIONED and "conditioning_key" not in params:
            self.add(("model", "conditioning_key"), "none", "model.target")
        for name in top:
            if name == "model" or name not in mapping:
                continue
            if name not in _sections():
                self.add((name,), mapping[name], name)
                continue
            for key, value in self.mapping(mapping[name], name).items():
                self.add((name, key), value, f"{name}.{key}")

    def block(self, block: Mapping[str, Any], prefix: str = "") -> None:
        """The keys of ``params``, or of a flat block."""
        self.sized = self.sized or block.get(IMAGE_SIZE[-1]) is not None
        for key, value in sorted(block.items(), key=lambda item: item[0] == "given_betas"):  # over the named schedule
            name = prefix + key
            if key == "given_betas":
                self.given_betas(value, name)
            elif key == "dataset":
                self.dataset(value, name, block.get(IMAGE_SIZE[-1]))
            elif key == UNET[-1]:
                self.unet(value, name)
            elif key in IGNORED:
                self.notices.append(f"{name} is ignored: {IGNORED[key]}")
            elif key in NEUTRAL:
                if value != NEUTRAL[key]:
                    expected = f"expected {shown(NEUTRAL[key])}: not supported"
                    raise UserError(f"{self.where}: {name}: found {shown(value)}, {expected}")
            elif key in RENAMED:
                self.renamed(key, RENAMED[key], value, name)
            else:
                paths = [path for path in fields.matches(key) if path[0] != key or path[0] not in _sections()]
                if len(paths) != 1:
                    names = [*(path[-1] for path in fields.table()), *SPECIAL]
                    raise UserError(f"{self.where}: unknown key {name!r}{fields.nearest(key, names)}")
                self.add(paths[0], value, name)

    def renamed(self, key: str, path: fields.Path, value: Any, name: str) -> None:
        """A key that is another one here; values of noise_type and of target_size have another form too."""
        if key == "noise_type":
            noise = NOISE_TYPES.get(value) if isinstance(value, str) else None
            for part, its in (noise or {"type": value}).items():
                self.add((*NOISE, part), its, name)
        elif key == "target_size":
            size = _resize(value)
            self.add(path, size, name)
            if not self.sized:
                self.add(IMAGE_SIZE, min(size) if _is_pair(size) else size, name)
        else:
            self.add(path, value, name)

    def dataset(self, node: Any, name: str, image_size: Any) -> None:
        """The keys of the dataset; ``image_size`` is the one beside it, or None."""
        target, params, at = self.target_and_params(node, DATASETS, name)
        self.add(("data", "kind"), DATASETS[target], f"{name}.target")
        keys, sizes = DATASET_KEYS, ["target_size"] if DATASETS[target] == "volumes" else []
        if target == SUPER_RESOLUTION:
            keys, sizes = SUPER_RESOLUTION_KEYS, ["target_size", IMAGE_SIZE[-1]]
            self.add((*NOISE, "type"), "downsampled", f"{name}.target")
            # whole slices, as there: several patches in a row of one of them would be the same image
            self.add(("data", "patches_per_slice"), 1, f"{name}.target")
            if "scale_factor" not in params:
                self.add(keys["scale_factor"], 1, f"{at}scale_factor")
                what = "which was 1 in the original code: nothing is downsampled"
                self.notices.append(f"{at}scale_factor is not given, {what}")
        self.check_keys(params, [*keys, *sizes, "batch_size"], at)
        self.sized = self.sized or params.get(IMAGE_SIZE[-1]) is not None
        for key, value in params.items():
            if key == "batch_size":
                what = "the batch_size beside the dataset is the one of training"
                self.notices.append(f"{at}{key} is ignored: {what}")
            elif key != IMAGE_SIZE[-1]:
                self.renamed(key, keys.get(key, RENAMED.get(key, ())), value, at + key)
            elif image_size is None:
                self.add(IMAGE_SIZE, value, at + key)
            elif value != image_size:
                what = "the image_size beside the dataset is the side of a training patch"
                self.notices.append(f"{at}{key} is ignored: {what}")

    def unet(self, node: Any, name: str) -> None:
        """The network's keys, flat or below ``target`` and ``params``; unknown ones are found by the validation."""
        node, at = self.mapping(node, name), f"{name}."
        if "target" in node or "params" in node:
            _, node, at = self.target_and_params(node, UNETS, name)
        for key, value in node.items():
            self.add((*UNET, key), value, at + key)

    def given_betas(self, betas: Any, name: str) -> None:
        """Given betas replace the named schedule and set the number of steps, as in the original code."""
        if betas is None:
            return
        self.found[("model", "betas")] = (betas, name)
        self.found[BETA_SCHEDULE] = ("custom", name)
        if isinstance(betas, list):
            self.found[("model", "timesteps")] = (len(betas), name)

    def settle_noise(self) -> None:
        """``variance`` beside noise that is no Gaussian: speckle states its root, and salt and pepper has none."""
        kind, _ = self.found.get((*NOISE, "type"), ("gaussian", ""))
        if (*NOISE, "variance") not in self.found or kind not in ("speckle", "salt_and_pepper"):
            return
        value, name = self.found.pop((*NOISE, "variance"))
        if kind == "speckle":
            self.add((*NOISE, "relative"), _root(value), name)
        else:
            what = "salt and pepper has no variance; data.noise.fraction is the share of the pixels"
            self.notices.append(f"{name} is ignored: {what}")

    def target_and_params(self, node: Any, targets: Iterable[str], name: str) -> tuple[str, Mapping[str, Any], str]:
        """The target, the mapping ``params``, and the prefix of the names of its keys."""
        node = self.mapping(node, name)
        self.check_keys(node, ["target", "params"], f"{name}.")
        expected = f"expected one of: {_listed(targets)}"
        if "target" not in node:
            raise UserError(f"{self.where}: {name}.target: missing, {expected}")
        # later files of the original work put its packages below src
        target = str(node["target"]).removeprefix("src.")
        if target not in targets:
            raise UserError(f"{self.where}: {name}.target: found {shown(node['target'])}, {expected}")
        return target, self.mapping(node.get("params"), f"{name}.params"), f"{name}.params."

    def mapping(self, node: Any, name: str) -> Mapping[str, Any]:
        """A mapping of keys; null is one without keys."""
        if node is not None and not isinstance(node, Mapping):
            raise UserError(f"{self.where}: {name}: found {shown(node)}, expected a mapping of keys")
        return node or {}

    def check_keys(self, node: Mapping[str, Any], expected: list[str], prefix: str) -> None:
        for key in node:
            if key not in expected:
                raise UserError(f"{self.where}: unknown key {prefix + key!r}{fields.nearest(key, expected)}")


def _is_experiment(mapping: Mapping[str, Any]) -> bool:
    model = mapping.get("model")
    return isinstance(model, Mapping) and ("target" in model or "params" in model)


def _sections() -> list[str]:
    """The sections at the top of the project's layout."""
    return [path[0] for path, annotation in fields.table().items() if len(path) == 1 and fields.sections(annotation)]


def _schedule_notice(found: Any) -> list[str]:
    """What an experiment file's ``beta_schedule`` means here, where the original code meant another by it."""
    if not isinstance(found, str) or found not in BETA_SCHEDULES:
        return []
    line, meant = BETA_SCHEDULES[found]
    return [
        f"beta_schedule {found} is a line in {line}; under this name the original code drew one in "
        f"{BETA_SCHEDULES[meant][0]}, which is beta_schedule {meant} here"
    ]


def _resize(target_size: Any) -> Any:
    """The value of data.resize for (width, height) or a side: the original code padded to a square before it."""
    if not _is_pair(target_size):
        return target_size
    width, height = target_size
    return width if width == height else [height, width]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)


def _root(value: Any) -> Any:
    """The root of a number or of each of a pair; what is neither is left for the validation to refuse."""
    if isinstance(value, list):
        return [_root(item) for item in value]
    return value**0.5 if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else value


def _listed(targets: Iterable[str]) -> str:
    """The targets in a message: those of one module after the first by their last name."""
    names, before = [], ""
    for target in targets:
        module, _, last = target.rpartition(".")
        names.append(last if module == before else target)
        before = module
    return ", ".join(names)
