"""Norm of each pixel's channels, scale, shift and SiLU in one pass over a GPU's memory, in Triton's language.

Imported only where there is a GPU and Triton, which torch brings along on Linux.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 4096
"""Of a feature map, that a program computes at a time."""


@triton.jit
def _kernel(
    x,
    out,
    scale,
    shift,
    pixels,
    image_step,
    channel_step,
    pixel_step,
    scale_step,
    shift_step,
    epsilon,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, CHANNELS)
    real = channel < C
    inside = real[:, None] & (pixel < pixels)[None, :]
    place = image * image_step + channel[:, None].to(tl.int64) * channel_step + pixel[None, :] * pixel_step
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / C
    centred = tl.where(inside, values - mean[None, :], 0.0)
    variance = tl.sum(centred * centred, 0) / C
    normed = centred * tl.rsqrt(variance + epsilon)[None, :]
    factor = tl.load(scale + image * scale_step + channel, mask=real, other=0.0).to(tl.float32)
    offset = tl.load(shift + image * shift_step + channel, mask=real, other=0.0).to(tl.float32)
    result = normed * factor[:, None] + offset[:, None]
    tl.store(out + place, (result * tl.sigmoid(result)).to(out.dtype.element_ty), mask=inside)


def pixel_norm_silu(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """SiLU of scale times the norm of x plus shift, as x.

    x: a feature map (N, C, H, W), contiguous or channels_last; scale, shift: (C,), or (N, C) for each image of the
    batch. Computed in float32 and rounded once.
    """
    n, channels, height, width = x.shape
    out = torch.empty_like(x)
    steps = [channels * height * width, *((height * width, 1) if x.is_contiguous() else (1, channels))]
    steps += [values.stride(0) if values.ndim == 2 else 0 for values in (scale, shift)]
    together = triton.next_power_of_2(channels)
    pixels = max(1, ELEMENTS // together)
    grid = (triton.cdiv(height * width, pixels), n)
    with torch.cuda.device_of(x):
        _kernel[grid](x, out, scale, shift, height * width, *steps, epsilon, channels, together, pixels)
    return out
