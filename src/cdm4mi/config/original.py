"""Experiment files of the original work, and flat blocks of the same keys, into the project's own layout.

A ``target`` names an entry of the tables below. It is compared as text and never imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdm4mi.config import fields
from cdm4mi.config.tree import Tree
from cdm4mi.config.yaml_text import shown
from cdm4mi.errors import UserError

LOADERS = "diffusion_modules.diffusion_utils.dataloader"
MODELS = ("models.ddpm_conditioned.ConditionDDPM", "models.ddpm_st_diffusion.DDPM")
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
UNCONDITIONED = MODELS[1]

RENAMED: dict[str, fields.Path] = {
    "image_dir": ("data", "paths"),
    "noise_type": ("data", "noise", "type"),
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
    "variance": ("data", "noise", "variance"),
    "dynamic_range": ("data", "dynamic_range"),
}
SUPER_RESOLUTION_KEYS: dict[str, fields.Path] = {
    "image_dir": RENAMED["image_dir"],
    "scale_factor": ("data", "noise", "factor"),
    "dynamic_range": ("data", "dynamic_range"),
}
RESIZE: fields.Path = ("data", "resize")
UNET: fields.Path = ("model", "unet_rosinality_config")

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

FILE_NAMES = ("dataset", "given_betas", *IGNORED, *NEUTRAL)
"""Names of a block that stand for no one key of the own layout."""


def is_experiment(mapping: Mapping[str, Any]) -> bool:
    """Whether this is the original layout: ``model`` holds ``target`` or ``params``."""
    model = mapping.get("model")
    return isinstance(model, Mapping) and ("target" in model or "params" in model)


def is_flat(mapping: Mapping[str, Any]) -> bool:
    """Whether no section of the own layout is there, so that every key is a bare name."""
    return not any(fields.is_section(annotation) for (name, *_), annotation in _top() if name in mapping)


def translate_experiment(mapping: Mapping[str, Any], where: str) -> tuple[Tree, list[str]]:
    """The own layout of an experiment file of the original work, and the notices.

    Raises:
        UserError: unknown ``target`` or key, or a key with a meaning that is not supported.
    """
    tree, notices = Tree(), []
    _check_keys(mapping, [name for (name,), _ in _top()], where, "")
    target, params, at = _target_and_params(mapping["model"], MODELS, where, "model")
    notices += _block(params, tree, where, at)
    if target == UNCONDITIONED and "conditioning_key" not in params:
        tree.add(("model", "conditioning_key"), "none", where, "model.target")
    notices += _settle_noise(tree, where)
    for (name,), annotation in _top():
        if name == "model" or name not in mapping:
            continue
        if not fields.is_section(annotation):
            tree.add((name,), mapping[name], where, name)
            continue
        for key, value in _mapping(mapping[name], where, name).items():
            tree.add((name, key), value, where, f"{name}.{key}")
    return tree, notices


def translate_flat(mapping: Mapping[str, Any], where: str) -> tuple[Tree, list[str]]:
    """The own layout of a flat block of keys, and the notices. Raises as ``translate_experiment``."""
    tree = Tree()
    notices = _block(mapping, tree, where, "")
    return tree, notices + _settle_noise(tree, where)


def _block(block: Mapping[str, Any], tree: Tree, where: str, prefix: str) -> list[str]:
    """Place the keys of ``params``, or of a flat block."""
    notices = []
    for key, value in block.items():
        name = prefix + key
        if key == "given_betas":
            continue  # it goes last, over the named schedule
        if key == "dataset":
            notices += _dataset(value, tree, where, name, block.get("image_size"))
        elif key == UNET[-1]:
            _unet(value, tree, where, name)
        elif key in IGNORED:
            notices.append(f"{name} is ignored: {IGNORED[key]}")
        elif key in NEUTRAL:
            if value != NEUTRAL[key]:
                raise UserError(f"{where}: {name}: found {shown(value)}, expected {shown(NEUTRAL[key])}: not supported")
        else:
            path = RENAMED.get(key) or _bare(key)
            if path is None:
                raise UserError(f"{where}: unknown key {name!r}{fields.nearest(key, bare_names())}")
            _place(path, value, tree, where, name)
    if block.get("given_betas") is not None:
        _given_betas(block["given_betas"], tree, where, f"{prefix}given_betas")
    return notices


def _dataset(node: Any, tree: Tree, where: str, name: str, image_size: Any) -> list[str]:
    """The keys of the dataset; ``image_size`` is the one beside it, or None."""
    target, params, at = _target_and_params(node, DATASETS, where, name)
    kind = DATASETS[target]
    tree.add(("data", "kind"), kind, where, f"{name}.target")
    known, sized = DATASET_KEYS, ["target_size"] if kind == "volumes" else []
    notices = []
    if target == SUPER_RESOLUTION:
        known, sized = SUPER_RESOLUTION_KEYS, ["target_size", "image_size"]
        tree.add(("data", "noise", "type"), "downsampled", where, f"{name}.target")
        # whole slices, as there: several patches in a row of one of them would be the same image
        tree.add(("data", "patches_per_slice"), 1, where, f"{name}.target")
        if "scale_factor" not in params:
            tree.add(("data", "noise", "factor"), 1, where, f"{at}scale_factor")
            notices.append(f"{at}scale_factor is not given, which was 1 in the original code: nothing is downsampled")
    _check_keys(params, [*known, *sized, "batch_size"], where, at)
    for key, value in params.items():
        if key in known:
            _place(known[key], value, tree, where, at + key)
        elif key == "batch_size":
            notices.append(f"{at}{key} is ignored: the batch_size beside the dataset is the one of training")
        elif key == "target_size":
            tree.add(RESIZE, resize_of(value), where, at + key)
        elif image_size is None:
            tree.add(("model", "image_size"), value, where, at + key)
        elif value != image_size:
            notices.append(f"{at}{key} is ignored: the image_size beside the dataset is the side of a training patch")
    if "target_size" in params and image_size is None and "image_size" not in params:
        size = resize_of(params["target_size"])
        tree.add(("model", "image_size"), min(size) if _pair(size) else size, where, f"{at}target_size")
    return notices


def _place(path: fields.Path, value: Any, tree: Tree, where: str, name: str) -> None:
    """Place a key that has one place, under the names that its values have here."""
    if path != RENAMED["noise_type"]:
        tree.add(path, value, where, name)
        return
    for key, own in noise_keys(value).items():
        tree.add((*path[:-1], key), own, where, name)


def noise_keys(noise_type: Any) -> dict[str, Any]:
    """The keys of the noise section that a value of ``noise_type`` stands for."""
    known = NOISE_TYPES.get(noise_type) if isinstance(noise_type, str) else None
    return known or {"type": noise_type}


def _settle_noise(tree: Tree, where: str) -> list[str]:
    """``variance`` beside noise that is no Gaussian: speckle states its root, and salt and pepper has none."""
    at = RENAMED["noise_type"][:-1]
    path = (*at, "variance")
    noise = tree.values.get("data", {}).get("noise")
    if path not in tree.origins or not isinstance(noise, dict):
        return []
    name = tree.origins[path][1]
    if noise.get("type") == "speckle":
        value = noise.pop("variance")
        tree.origins.pop(path)
        tree.add((*at, "relative"), _root(value), where, name)
    elif noise.get("type") == "salt_and_pepper":
        del noise["variance"]
        tree.origins.pop(path)
        return [f"{name} is ignored: salt and pepper has no variance; data.noise.fraction is the share of the pixels"]
    return []


def _root(value: Any) -> Any:
    """The root of a number or of each of a pair; what is neither is left for the validation to refuse."""
    if isinstance(value, list):
        return [_root(item) for item in value]
    return value**0.5 if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else value


def _unet(node: Any, tree: Tree, where: str, name: str) -> None:
    """The network's keys, flat or below ``target`` and ``params``; unknown ones are found by the validation."""
    node = _mapping(node, where, name)
    at = f"{name}."
    if "target" in node or "params" in node:
        _, node, at = _target_and_params(node, UNETS, where, name)
    for key, value in node.items():
        tree.add((*UNET, key), value, where, at + key)


def _given_betas(betas: Any, tree: Tree, where: str, name: str) -> None:
    """Given betas replace the named schedule and set the number of steps, as in the original code."""
    tree.replace(("model", "betas"), betas, where, name)
    tree.replace(("model", "beta_schedule"), "custom", where, name)
    if isinstance(betas, list):
        tree.replace(("model", "timesteps"), len(betas), where, name)


def resize_of(target_size: Any) -> Any:
    """The value of data.resize for (width, height) or a side: the original code padded to a square before it."""
    if not _pair(target_size):
        return target_size
    width, height = target_size
    return width if width == height else [height, width]


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)


def _target_and_params(node: Any, known: Iterable[str], where: str, name: str) -> tuple[str, Mapping[str, Any], str]:
    """The known target, the mapping ``params``, and the prefix of the names of its keys."""
    node = _mapping(node, where, name)
    _check_keys(node, ["target", "params"], where, f"{name}.")
    names = _listed(known)
    if "target" not in node:
        raise UserError(f"{where}: {name}.target: missing, expected one of: {names}")
    # Later files of the original work put its packages below src.
    target = str(node["target"]).removeprefix("src.")
    if target not in known:
        raise UserError(f"{where}: {name}.target: found {shown(node['target'])}, expected one of: {names}")
    return target, _mapping(node.get("params"), where, f"{name}.params"), f"{name}.params."


def _listed(targets: Iterable[str]) -> str:
    """The targets in a message: those of one module after the first by their last name."""
    shown_names, before = [], ""
    for target in targets:
        module, _, last = target.rpartition(".")
        shown_names.append(last if module == before else target)
        before = module
    return ", ".join(shown_names)


def _mapping(node: Any, where: str, name: str) -> Mapping[str, Any]:
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        raise UserError(f"{where}: {name}: found {shown(node)}, expected a mapping of keys")
    return node


def _check_keys(node: Mapping[str, Any], known: list[str], where: str, prefix: str) -> None:
    for key in node:
        if key not in known:
            raise UserError(f"{where}: unknown key {prefix + key!r}{fields.nearest(key, known)}")


def _top() -> list[tuple[fields.Path, Any]]:
    return [(path, annotation) for path, annotation in fields.table().items() if len(path) == 1]


def _bare(key: str) -> fields.Path | None:
    """The one place of a bare name; the four sections themselves are no names of a block."""
    found = [path for path in fields.matches(key) if not (len(path) == 1 and fields.is_section(fields.table()[path]))]
    return found[0] if len(found) == 1 else None


def bare_names() -> list[str]:
    """Every bare name that a block may hold, and the sections, for a misspelt one."""
    own = [path[-1] for path in fields.table() if len(path) > 1]
    return [*own, *(name for (name,), _ in _top()), *RENAMED, *FILE_NAMES]


def schedule_notice(tree: Tree) -> list[str]:
    """What an experiment file's ``beta_schedule`` means here, where the original code meant another by it."""
    other = {"linear": "sqrt_linear", "sqrt_linear": "linear"}
    found = tree.values.get("model", {}).get("beta_schedule", "linear")
    if found not in other:
        return []
    line = {"linear": "beta", "sqrt_linear": "the square root of beta"}
    return [
        f"beta_schedule {found} is a line in {line[found]}; under this name the original code drew one in "
        f"{line[other[found]]}, which is beta_schedule {other[found]} here"
    ]
