"""Encoders of a conditioning image: to tokens for cross-attention, to a vector for adaptive normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cdm4mi.networks.attention import position_encoding


def _trunk(in_channel: int, width: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channel, 32, 3, padding=1)]
    channel = 32
    for _ in range(halvings):
        layers += [nn.SiLU(), nn.Conv2d(channel, width, 3, stride=2, padding=1), nn.GroupNorm(32, width)]
        channel = width
    return nn.Sequential(*layers)


class TokenEncoder(nn.Module):
    """An image (N, C, H, W) to tokens (N, H/8 * W/8, dim) that contain their position. dim: a multiple of 32."""

    def __init__(self, in_channel: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = _trunk(in_channel, dim, 3)

    def forward(self, image: Tensor) -> Tensor:
        h: Tensor = self.trunk(image)
        return h.flatten(2).transpose(1, 2) + position_encoding(h.shape[2], h.shape[3], self.dim, h)


class VectorEncoder(nn.Module):
    """An image (N, C, H, W) of any size to a vector (N, dim): an 8 x 8 summary of it, read by a linear layer."""

    def __init__(self, in_channel: int, dim: int) -> None:
        super().__init__()
        self.trunk = _trunk(in_channel, 64, 2)
        self.head = nn.Linear(64 * 64, dim)

    def forward(self, image: Tensor) -> Tensor:
        vector: Tensor = self.head(F.adaptive_avg_pool2d(F.silu(self.trunk(image)), 8).flatten(1))
        return vector
