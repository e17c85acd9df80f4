"""From the configuration's model section to a network and a process; what does not fit together is refused here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cdm4mi.config.schema import ModelConfig
from cdm4mi.diffusion.bridges import FlowBridge, SchroedingerBridge
from cdm4mi.diffusion.parameterizations import PARAMETERIZATIONS, EpsWithMean
from cdm4mi.diffusion.paths import DDPMPath, GaussianPath
from cdm4mi.diffusion.schedules import make_betas
from cdm4mi.errors import UserError
from cdm4mi.models.process import ConditionalProcess
from cdm4mi.networks import DiffusionWrapper, UNet
from cdm4mi.networks.dncnn import DnCNN
from cdm4mi.networks.precision import arrange_for
from cdm4mi.networks.red_cnn import REDCNN

PLAIN: dict[str, type[DnCNN] | type[REDCNN]] = {"dncnn": DnCNN, "red_cnn": REDCNN}


def build_network(config: ModelConfig, cond: nn.Module | None = None, further_channels: int = 0) -> DiffusionWrapper:
    """The network in its wrapper, freshly initialised. Raises UserError where the key does not fit the network.

    cond: a module that makes the wrapper's condition of what the user has; for concat and hybrid an image of the
    channels that ``in_channel`` leaves beside those of x. further_channels: of the condition, beside the image's own
    and the level (``Config.further_channels``).
    """
    unet_config = config.unet_rosinality_config
    if config.network != "unet":
        for name, expected in (("parameterization", "precond"), ("conditioning_key", "concat")):
            if (found := getattr(config, name)) != expected:
                raise UserError(f"network {config.network} with {name} {found}: expected {expected}")
    for width in (unet_config.channel * m for m in unet_config.channel_multiplier):
        if width % unet_config.attn_heads:
            raise UserError(f"attn_heads: found {unet_config.attn_heads}, expected a divisor of {width} channels")
    condition_channel = config.channels + further_channels + config.level_channel + 3 * config.texture_channels
    if cond is not None:
        for key in ("level_channel", "texture_channels"):
            if getattr(config, key):
                raise UserError(f"{key}: found true with cond, expected false (cond makes all of the condition)")
        condition_channel = max(1, unet_config.in_channel - config.channels)
    channels = {"in_channel": unet_config.in_channel, "out_channel": unet_config.out_channel}
    network = DiffusionWrapper(
        UNet(**unet_config.model_dump()) if config.network == "unet" else PLAIN[config.network](**channels),
        config.conditioning_key,
        image_channel=config.channels,
        condition_channel=condition_channel,
        condition_parts=_parts(config, further_channels),
        acquisition_size=len(config.acquisition_vector) if config.acquisition_vector else None,
        cond=cond,
    )
    arrange_for(network, torch.device("cpu"))
    return network


def _parts(config: ModelConfig, further_channels: int) -> str:
    """What the condition's channels are, for messages; nothing where there is only the image."""
    parts = [f"{config.channels} of the noisy image"]
    if further_channels:
        parts.append(f"{further_channels} of neighbouring slices and other contrasts")
    if config.level_channel:
        parts.append("1 of its level")
    if config.texture_channels:
        parts.append("3 of its noise's texture")
    return ": " + " + ".join(parts) if len(parts) > 1 else ""


def check_sizes(config: ModelConfig) -> None:
    """Refuse with a UserError what training would stumble over or pass over: sides and strides that do not fit.

    Not asked of a model that is trained already: its weights say what it is.
    """
    unet, side = config.unet_rosinality_config, config.image_size
    if config.network == "red_cnn" and side < REDCNN.LEAST_SIDE:
        raise UserError(f"image_size: found {side}, expected at least {REDCNN.LEAST_SIDE} for network red_cnn")
    if config.network != "unet":
        return
    levels = len(unet.channel_multiplier)
    strides = [2**level for level in range(levels)]
    if unknown := sorted(set(unet.attn_strides) - set(strides)):
        raise UserError(
            f"attn_strides: found {unknown[0]}, expected some of {', '.join(map(str, strides))} "
            f"(channel_multiplier has {levels} level{'s' if levels > 1 else ''}), or [] for none"
        )
    multiple = unet.fold * strides[-1]
    if side % multiple:
        below = side // multiple * multiple
        nearest = f"{below} or {below + multiple}" if below else str(multiple)
        raise UserError(
            f"image_size: found {side}, expected a multiple of {multiple}, say {nearest} "
            f"(fold {unet.fold}, channel_multiplier of {levels} level{'s' if levels > 1 else ''})"
        )
    narrowest = unet.channel * min([1, *unet.channel_multiplier][-2:])  # what comes into the last level, and leaves it
    if unet.norm == "group" and side == multiple and narrowest == unet.norm_groups:
        raise UserError(
            f"image_size: found {side}, expected at least {2 * multiple}: the coarsest level has one pixel, and groups "
            f"of one of its {narrowest} channels cannot be normalised"
        )


def build_process(config: ModelConfig, betas: Sequence[float] | None = None) -> ConditionalProcess:
    """Path and parameterization. ``betas``: the schedule that a checkpoint holds, in place of the configured one."""
    fold = config.unet_rosinality_config.fold if config.network == "unet" else 1
    of_condition = config.mean_from == "condition"
    parameterization = EpsWithMean(fold) if of_condition else PARAMETERIZATIONS[config.parameterization]
    path = build_path(config, betas)
    parameterization.check(path)
    if config.parameterization == "precond" and config.conditioning_key not in ("concat", "hybrid"):
        raise UserError(
            f"parameterization precond with conditioning_key {config.conditioning_key}: expected concat or hybrid "
            "(the estimate is built on the conditioning image)"
        )
    return ConditionalProcess(
        path,
        parameterization,
        channels=config.channels,
        level_channel=config.level_channel,
        texture_channels=config.texture_channels,
        sigma_r=config.sigma_r,
        fold=fold,
    )


def build_path(config: ModelConfig, betas: Sequence[float] | None = None) -> GaussianPath:
    """The Gaussian path: a bridge, or the diffusion of the configured (or given) betas."""
    if config.path == "bridge":
        return FlowBridge(config.timesteps, config.bridge_noise)
    if config.path == "i2sb":
        return SchroedingerBridge(config.timesteps, config.bridge_noise**2)
    if betas is not None:
        return DDPMPath(torch.tensor(list(betas), dtype=torch.float64))
    return DDPMPath(
        make_betas(
            config.beta_schedule,
            config.timesteps,
            linear_start=config.linear_start,
            linear_end=config.linear_end,
            cosine_s=config.cosine_s,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            betas=config.betas,
            zero_terminal_snr=config.zero_terminal_snr,
        )
    )
