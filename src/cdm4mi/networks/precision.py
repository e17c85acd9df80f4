"""The number format and the order in memory with which a device computes a network fastest."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

from cdm4mi.networks.bf16_cpu import bf16_instructions

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it (a CPU with AVX-512 BF16 or AMX, a GPU that has it), else float16 on
    other GPUs and float32 on the rest."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu":
        return torch.float32
    return torch.bfloat16 if bf16_instructions() else torch.float32


def arrange_for(network: nn.Module, device: torch.device) -> None:
    """Arrange the weights of a network, and so its feature maps, as the device computes it fastest.

    A CPU takes the channels of a pixel side by side (channels_last); a GPU is a quarter faster with whole planes.
    """
    planes = torch.contiguous_format if device.type == "cuda" else torch.channels_last
    network.to(memory_format=planes)  # type: ignore[call-overload]  # torch declares no such keyword


def rounded(network: NetworkT, dtype: torch.dtype) -> NetworkT:
    """A copy of a network whose convolutions and linear layers have their weights in a number format already.

    Within autocast a GPU computes the same with it, without rounding hundreds of weights at every call.
    """
    copy = deepcopy(network)
    for layer in copy.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.to(dtype)
    return copy
