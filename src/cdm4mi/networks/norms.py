"""The norms of the UNet: of groups of channels over the whole feature map, or of the channels of each pixel."""

from __future__ import annotations

import importlib.util
from functools import cache

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


def normed_silu(norm: nn.Module, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    """SiLU of the norm of a feature map x (N, C, H, W), which is scaled by 1 + gamma and shifted by beta, both (N, C),
    before, where they are given."""
    if isinstance(norm, PixelNorm) and _in_one_pass(x):
        from cdm4mi.networks.pixel_norm_gpu import pixel_norm_silu

        scale, shift = (norm.weight, norm.bias) if gamma is None else (1 + gamma, beta)
        assert scale is not None and shift is not None
        return pixel_norm_silu(x, scale, shift, norm.EPS)
    h = norm(x)
    if gamma is not None and beta is not None:
        h = (1 + gamma[:, :, None, None]) * h + beta[:, :, None, None]
    # what nothing else reads goes in place where no gradient is wanted: a new map of a large image would take longer
    # to come by than to compute
    return F.silu(h, inplace=not torch.is_grad_enabled())


def _in_one_pass(x: Tensor) -> bool:
    """Whether a GPU computes norm and SiLU of a feature map at once: without a gradient, and with Triton."""
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return dense and _has_triton(x.device)


@cache
def _has_triton(device: torch.device) -> bool:
    """Whether Triton is installed and knows the GPU."""
    return importlib.util.find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)
