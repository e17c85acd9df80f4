"""Checkpoints of the original work: which of their weights to take, and what their network is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from cdm4mi.errors import UserError
from cdm4mi.models.inert import plain_values

UNET = "diffusion_model."
NETWORK = "model." + UNET
AVERAGES = "model_ema."


def original_weights(file: Path, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The network's weights by name (``diffusion_model.*``), and what a user should be parameters of them.

    Averaged ones where there are any; their names have no dots. Those that were never updated (``num_updates`` 0) are
    copies of the initial weights, so the weights as trained are taken. Raises UserError where there is no network.
    """
    weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith(NETWORK)}
    if not weights:
        raise UserError(f"{file}: has no weights named {NETWORK}*, expected a diffusion model's checkpoint")
    averaged = {k.removeprefix(AVERAGES): v for k, v in state.items() if k.startswith(AVERAGES)}
    if not averaged:
        return weights, []
    updates = averaged.get("num_updates")
    if updates is not None and updates.numel() == 1 and updates.item() == 0:
        return weights, [
            "the averaged (EMA) weights were never updated (num_updates is 0), so the weights as trained are used"
        ]
    short_names = {name: name.replace(".", "") for name in weights}
    weights |= {name: averaged[short] for name, short in short_names.items() if short in averaged}
    return weights, ["the averaged (EMA) weights are used"]


def inferred(file: Path, weights: dict[str, Tensor], hyper_parameters: Any) -> tuple[dict[str, Any], str]:
    """The model section of the configuration, and a notice of what it rests on.

    The network's widths follow from the shapes of its weights; attention heads, dilation, channels of the image,
    image_size and parameterization by ``hyper_parameters`` where the checkpoint holds them, else they are one head,
    no dilation, one channel and eps. Raises UserError where the weights are not those of the Rosinality UNet.
    """
    parameters = plain_values(hyper_parameters)
    parameters = parameters if isinstance(parameters, dict) else {}
    unet = parameters.get("unet_rosinality_config")
    unet = unet if isinstance(unet, dict) else {}
    unet = unet["params"] if isinstance(unet.get("params"), dict) else unet
    image: int = unet["out_channel"] if _count(unet.get("out_channel")) else 1
    network = _network({k.removeprefix(UNET): v for k, v in weights.items()}, file, image)
    if _count(unet.get("attn_heads")):
        network["attn_heads"] = unet["attn_heads"]
    if _three_counts(unet.get("dilation")):
        network["dilation"] = unet["dilation"]
    key = "concat" if network["in_channel"] == 2 * image else "none"
    model = {"channels": image, "conditioning_key": key, "unet_rosinality_config": network}
    if _count(parameters.get("image_size")):
        model["image_size"] = parameters["image_size"]
    parameterization = parameters.get("parameterization")
    model["parameterization"] = parameterization if parameterization in ("eps", "x0") else "eps"
    heads = network.get("attn_heads", 1)
    if parameters:
        how = f"attn_heads {heads} and parameterization {model['parameterization']} from its hyper_parameters"
    else:
        how = "one attention head and parameterization eps are assumed; give a configuration for anything else"
    return model, f"network and conditioning_key {key} are inferred from the weights, {how}"


def _network(weights: dict[str, Tensor], file: Path, out_channel: int) -> dict[str, Any]:
    """The UNet's arguments from the shapes of its weights."""
    try:
        blocks = sorted({int(m.group(1)) for k in weights if (m := re.match(r"down\.(\d+)\.", k))})
        channel = weights["down.0.weight"].shape[0]
        fold = round((weights["out.2.weight"].shape[0] / out_channel) ** 0.5)
        levels: list[list[int]] = [[]]
        strides: set[int] = set()
        for i in blocks[1:]:
            if f"down.{i}.0.weight" in weights:
                levels.append([])
                continue
            levels[-1].append(weights[f"down.{i}.resblocks.conv2.weight"].shape[0])
            if f"down.{i}.attention.qkv.weight" in weights:
                strides.add(2 ** (len(levels) - 1))
        return {
            "in_channel": weights["down.0.weight"].shape[1] // fold**2,
            "out_channel": out_channel,
            "channel": channel,
            "channel_multiplier": [level[0] // channel for level in levels],
            "n_res_blocks": len(levels[0]),
            "attn_strides": sorted(strides),
            "use_affine_time": "down.1.resblocks.norm2.weight" not in weights,
            "fold": fold,
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise UserError(
            f"{file}: its weights are not those of the Rosinality UNet, expected names as down.0.weight"
        ) from None


def _three_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_count(item) for item in value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
