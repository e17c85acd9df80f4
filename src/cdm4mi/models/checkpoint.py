"""Trained models on disk: this project's checkpoints and safetensors, and checkpoints of the original work."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cdm4mi.choices import BEST_OF_RUN, SHIPPED
from cdm4mi.config.load import parse_config
from cdm4mi.config.portable import portable, with_paths_of_run
from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.models.about import About
from cdm4mi.models.build import build_network, build_process
from cdm4mi.models.check import without_weights
from cdm4mi.models.ckpt_file import read_ckpt
from cdm4mi.models.original import inferred, original_weights
from cdm4mi.models.parts import check_fit, check_floating
from cdm4mi.models.process import ConditionalProcess
from cdm4mi.networks import DiffusionWrapper
from cdm4mi.records import read_record_as

SHIPPED_FILE = "base.safetensors"
_NETWORK = "model."
_REGRESSION = "regression."


@dataclass
class TrainedModel:
    """A network with its weights, ready to run, and what is known of it.

    about: version, training patients, model card and the like; notices: what a user should be told of the way the file
    was read; name, path: of its file, where it has one; regression: the model whose mean is the anchor of path and
    parameterization.
    """

    network: DiffusionWrapper
    process: ConditionalProcess
    config: Config
    about: About = field(default_factory=About)
    notices: list[str] = field(default_factory=list)
    name: str = ""
    regression: TrainedModel | None = None
    path: str = ""

    @property
    def where(self) -> str:
        """What messages call it: the path that it was read from, else its name."""
        return self.path or self.name

    def weights(self) -> dict[str, Tensor]:
        """Every weight by name; those of the regression begin with ``regression.``."""
        own = dict(self.network.state_dict())
        return own | ({_REGRESSION + k: v for k, v in self.regression.weights().items()} if self.regression else {})

    @property
    def weight_hash(self) -> str:
        """SHA-256 over names and float32 values of the weights: the same for every file that holds them."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()


def checkpoint_file(path: str | Path) -> Path:
    """The file of a model: the path itself, or best.ckpt of a run's folder. Raises UserError where there is none."""
    file = Path(path)
    if file.is_dir():
        found = [file / best for best in BEST_OF_RUN if (file / best).exists()]
        if not found:
            raise UserError(f"{file}: a folder without checkpoints/best.ckpt, expected a run's folder or a checkpoint")
        file = found[0]
    if not file.is_file():
        what = "is the package's own model, which stays as it is" if str(path) == SHIPPED else "no such file"
        raise UserError(f"{file}: {what}, expected a checkpoint (.ckpt or .safetensors) or a run's folder")
    return file


def load_model(path: str | Path | None = None, config: Config | None = None) -> TrainedModel:
    """Read a model, its averaged (EMA) weights where there are any.

    path: a .ckpt of this project or of the original work, a .safetensors file, or a run's folder (its best.ckpt); None
    or ``shipped``: the model that comes with the package. config: overrides what the file says, needed for original
    checkpoints of unusual networks. Nothing that a file names is imported or executed. Raises UserError for a file that
    is missing or is no such thing.
    """
    if path is None or path == SHIPPED:
        with resources.as_file(resources.files("cdm4mi.models") / "weights" / SHIPPED_FILE) as shipped:
            model = _load_safetensors(shipped, config)
        model.name = "shipped:" + SHIPPED_FILE.removesuffix(".safetensors")
        return model
    file = checkpoint_file(path)
    model = _load_safetensors(file, config) if file.suffix == ".safetensors" else _load_ckpt(file, config)
    model.name, model.path = file.name, str(file)
    return model


def save_model(model: TrainedModel, path: str | Path, *, half: bool = True, card: str = "") -> None:
    """Write weights (half precision unless told otherwise) and configuration as safetensors, atomically.

    card: the model card's text, kept in the metadata.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in model.weights().items()}
    metadata = {
        "format": "cdm4mi",
        "config": json.dumps(portable(model.config)),
        "about": json.dumps(model.about.model_copy(update={"card": ""}).plain()),
        "card": card,
    }
    if model.regression is not None:
        metadata["regression"] = json.dumps(portable(model.regression.config))
    with replacing_file(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # save_file gives the file to its owner alone


def _load_safetensors(file: Path, config: Config | None) -> TrainedModel:
    try:
        with safe_open(file, "pt") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, struct.error):
        raise UserError(f"{file}: not a readable safetensors file, or cut or damaged; expected one of cdm4mi") from None
    about = _about(_json(metadata.get("about", "{}"), file, "about") | {"card": metadata.get("card", "")}, file)
    if config is None:
        if "config" not in metadata:
            raise UserError(f"{file}: holds no cdm4mi configuration in its metadata, expected a model saved by cdm4mi")
        config = _parse(_json(metadata["config"], file, "config"), file)
    nested = _json(metadata["regression"], file, "regression") if "regression" in metadata else None
    return _with_regression(file, config, tensors, about, nested)


def _about_of(file: Path, checkpoint: dict[str, Any]) -> About:
    facts = {k: v for k, v in checkpoint["cdm4mi"].items() if k not in ("config", "regression")}
    return _about(facts | {"step": checkpoint["global_step"]}, file)


def _load_ckpt(file: Path, config: Config | None) -> TrainedModel:
    checkpoint = read_ckpt(file)
    state: dict[str, Tensor] = checkpoint["state_dict"]
    if "cdm4mi" not in checkpoint:
        return _load_original(file, checkpoint, config)
    own = checkpoint["cdm4mi"]
    about = _about_of(file, checkpoint)  # before the configuration: a newer format may have keys of its own there
    config = config or _parse(with_paths_of_run(own["config"], file.parent.parent), file)
    weights = {k.removeprefix(_NETWORK): v for k, v in state.items() if k.startswith(_NETWORK)}
    notices = []
    if "ema" in checkpoint:
        weights |= checkpoint["ema"]["weights"]
    else:
        notices.append("the checkpoint has no averaged weights: those as trained are used")
    weights |= {k: v for k, v in state.items() if k.startswith(_REGRESSION)}
    return _with_regression(file, config, weights, about, own.get("regression"), notices)


def _with_regression(
    file: Path,
    config: Config,
    weights: dict[str, Tensor],
    about: About,
    nested: Any,
    notices: list[str] | None = None,
) -> TrainedModel:
    """The model and, where its file holds one, the regression that it rests on (``nested``: its configuration)."""
    own = {k: v for k, v in weights.items() if not k.startswith(_REGRESSION)}
    model = _assemble(file, config, own, about, notices)
    if (config.model.regression is None) != (nested is None):
        raise UserError(f"{file}: its configuration and its weights differ about a regression, expected both or none")
    if nested is not None:
        inner = {k.removeprefix(_REGRESSION): v for k, v in weights.items() if k.startswith(_REGRESSION)}
        model.regression = _assemble(file, _parse(nested, file), inner, About())
    return model


def _load_original(file: Path, checkpoint: dict[str, Any], config: Config | None) -> TrainedModel:
    """A checkpoint of the original work; its own betas go before the schedule that a configuration names."""
    state: dict[str, Tensor] = checkpoint["state_dict"]
    weights, notices = original_weights(file, state)
    if config is None:
        found, how = inferred(file, weights, checkpoint.get("hyper_parameters"))
        config = _parse({"model": found}, file)
        notices.append(how)
    data = config.model_dump(mode="json")
    # with several heads the original network divides by the root of all channels; with one the two are equal
    data["model"]["unet_rosinality_config"]["attn_scale"] = "channel"
    if "betas" in state:
        betas = state["betas"].double().flatten().tolist()
        if not all(0 < b < 1 for b in betas):
            raise UserError(f"{file}: betas outside (0, 1), expected a noise schedule")
        notices.append(
            "the noise schedule is the checkpoint's own betas (the original code's 'linear' is a line in the root of "
            "beta, here sqrt_linear)"
        )
        data["model"] |= {"beta_schedule": "custom", "betas": betas, "timesteps": len(betas)}
    return _assemble(file, _parse(data, file), weights, About(layout="original work"), notices)


def _assemble(
    file: Path, config: Config, weights: dict[str, Tensor], about: About, notices: list[str] | None = None
) -> TrainedModel:
    unet = config.model.unet_rosinality_config
    if unet.n_res_blocks * len(unet.channel_multiplier) > len(weights):
        raise UserError(f"{file}: has {len(weights)} weights, fewer than its configuration has blocks")
    try:
        wanted = without_weights(config).state_dict()  # no memory is taken for what a file merely says
    except RuntimeError as error:
        raise UserError(f"{file}: its configuration is of no network that can be built ({_line(error)})") from None
    check_fit(file, weights, wanted)
    for name, value in weights.items():
        check_floating(file, name, value)
        if not torch.isfinite(value).all():
            raise UserError(f"{file}: {name} holds values that are not finite, expected trained weights")
    network = build_network(config.model, further_channels=config.further_channels)
    network.load_state_dict({k: v.float() for k, v in weights.items()})
    return TrainedModel(network.eval(), build_process(config.model), config, about, notices or [], file.name)


def _parse(data: dict[str, Any], file: Path) -> Config:
    return parse_config(data, where=str(file))


def _about(data: dict[str, Any], file: Path) -> About:
    return read_record_as(About, data, str(file), "a model of cdm4mi")


def _json(text: str, file: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{file}: metadata {name} is not a JSON object, expected a model saved by cdm4mi")
    return data


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
