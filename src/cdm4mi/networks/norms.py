"""The norms of the UNet: of groups of channels over the whole feature map, or of the channels of each pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """Each pixel's channels at mean 0 and standard deviation 1, then a weight and bias a channel (where affine).

    Layer normalisation (arXiv 1607.06450) of the channels of a feature map (N, C, H, W). Unlike a group norm's, its
    statistics do not depend on what else the image shows: a window gives the values that the whole slice gives.
    """

    EPS = 1e-5

    def __init__(self, channel: int, affine: bool = True) -> None:
        super().__init__()
        self.channel = channel
        self.weight = nn.Parameter(torch.ones(channel)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channel)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and not torch.is_grad_enabled():
            return self.by_sums(x)
        pixels = x.permute(0, 2, 3, 1)  # no copy in channels_last
        return F.layer_norm(pixels, (self.channel,), self.weight, self.bias, self.EPS).permute(0, 3, 1, 2)

    def by_sums(self, x: Tensor) -> Tensor:
        """The same in the number format of x, with sums in float32: a GPU's layer_norm is slow where rows are short."""
        mean = x.mean(1, keepdim=True, dtype=torch.float32)
        squares = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).square() / self.channel
        scale = torch.rsqrt((squares - mean.square()).clamp(min=0) + self.EPS)
        normed = torch.addcmul((-mean * scale).to(x.dtype), x, scale.to(x.dtype))
        if self.weight is None or self.bias is None:
            return normed
        weight, bias = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        return torch.addcmul(bias, normed, weight)


def make_norm(kind: str, groups: int, channel: int, affine: bool = True) -> nn.Module:
    """A norm by its name: ``group`` (of so many groups) or ``pixel``."""
    return PixelNorm(channel, affine) if kind == "pixel" else nn.GroupNorm(groups, channel, affine=affine)
