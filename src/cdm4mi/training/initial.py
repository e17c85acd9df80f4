"""A training that begins with the weights of a trained model (``training.initial_weights``)."""

from __future__ import annotations

from typing import Any

from torch import nn

from cdm4mi.config.schema import Config, ModelConfig
from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.networks import UNet
from cdm4mi.networks.deepen import deepened

_UNET = "unet_rosinality_config"
_FREE = {"image_size", "sigma_r"}
_FREE_OF_UNET = {"n_res_blocks", "dropout", "gradient_checkpointing"}


def initial_model(config: Config) -> TrainedModel | None:
    """The model that ``training.initial_weights`` names. Raises UserError where its network is another."""
    name = config.training.initial_weights
    if name is None:
        return None
    model = load_model(name)
    own, other = _settings(config.model), _settings(model.config.model)
    differing = next((key for key in own if own[key] != other[key]), None)
    if differing is not None:
        raise UserError(
            f"training.initial_weights: {name}: found model.{differing} {other[differing]}, expected {own[differing]}"
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


def _settings(config: ModelConfig) -> dict[str, Any]:
    """What two models must have in common, by the key within the section."""
    data = config.model_dump(mode="json", exclude=_FREE)
    unet = {f"{_UNET}.{key}": value for key, value in data.pop(_UNET).items() if key not in _FREE_OF_UNET}
    return data | unet
