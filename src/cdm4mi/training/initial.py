"""A training that begins with the weights of a trained model (``training.initial_weights``)."""

from __future__ import annotations

from typing import Any

from torch import nn

from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.networks import UNet
from cdm4mi.networks.deepen import deepened

_UNET = "unet_rosinality_config"
_FREE_OF_UNET = {"dropout", "gradient_checkpointing"}
_FREE_AT_FIRST = {"model.sigma_r", f"model.{_UNET}.n_res_blocks"}


def initial_model(config: Config) -> TrainedModel | None:
    """The model that ``training.initial_weights`` names. Raises UserError where its network is another."""
    name = config.training.initial_weights
    if name is None:
        return None
    model = load_model(name)
    own, other = (settings_of_weights(c.model_dump(mode="json")) for c in (config, model.config))
    differing = next((key for key in own if key not in _FREE_AT_FIRST and own[key] != other[key]), None)
    if differing is not None:
        raise UserError(
            f"training.initial_weights: {name}: found {differing} {other[differing]}, expected {own[differing]}"
        )
    fewer, more = (c.model.unet_rosinality_config.n_res_blocks for c in (model.config, config))
    if fewer > more:
        raise UserError(
            f"training.initial_weights: {name}: found model.{_UNET}.n_res_blocks {fewer}, expected at most {more}"
        )
    return model


def begin_with(wrapper: nn.Module, model: TrainedModel) -> None:
    """Give a network that was just made the weights of a model from ``initial_model``.

    Residual blocks that it has beyond the model's compute nothing at first (``networks.deepen``).
    """
    weights = model.network.state_dict()
    unet = wrapper.get_submodule("diffusion_model")
    if isinstance(unet, UNet):
        part = "diffusion_model."
        trained = {key.removeprefix(part): value for key, value in weights.items() if key.startswith(part)}
        blocks = model.config.model.unet_rosinality_config.n_res_blocks
        weights |= {part + key: value for key, value in deepened(trained, blocks, unet).items()}
        weights = {key: weights[key] for key in wrapper.state_dict()}
    wrapper.load_state_dict(weights)


def settings_of_weights(config: dict[str, Any]) -> dict[str, Any]:
    """What the meaning of a network's weights depends on, of a configuration as plain data, by dotted key."""
    model = {key: value for key, value in config["model"].items() if key not in ("image_size", _UNET)}
    unet = {f"{_UNET}.{key}": value for key, value in config["model"][_UNET].items() if key not in _FREE_OF_UNET}
    return {f"model.{key}": value for key, value in (model | unet).items()} | {
        "data.neighbours": config["data"]["neighbours"]
    }
