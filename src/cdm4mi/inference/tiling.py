"""A denoiser on windows of a large image, their estimates fused into one at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cdm4mi.diffusion.sampling import Denoiser
from cdm4mi.models.condition import Condition, crops


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of windows that cover 0 .. length - 1 evenly and overlap by at least that fraction of a window."""
    if window >= length:
        return [0]
    stride = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // stride) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def blend_weights(height: int, width: int) -> Tensor:
    """Weight of each pixel of a window, (height, width): a pyramid that falls towards the border and is never 0."""

    def ramp(n: int) -> Tensor:
        x = torch.arange(n, dtype=torch.float32)
        return torch.minimum(x + 1, n - x) / ((n + 1) // 2)

    return torch.outer(ramp(height), ramp(width))


def tiled(
    denoiser: Callable[[Condition], Denoiser], cond: Condition, tile: int, overlap: float, batch: int = 16
) -> Denoiser:
    """A denoiser that sees windows of at most tile x tile pixels, ``batch`` at a time, and blends what they give.

    The result is a function of the images alone: not of the order of the windows or of ``batch``. A tile as large as
    the image is one plain call. denoiser: makes the denoiser of the condition of some windows, as
    ``ConditionalProcess.denoiser``; tile: a multiple of what the network needs.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        n, _, height, width = x_t.shape
        if tile >= height and tile >= width:
            return denoiser(cond)(x_t, t)
        tall, wide = min(tile, height), min(tile, width)
        corners = [
            (i, row, column)
            for i in range(n)
            for row in window_starts(height, tall, overlap)
            for column in window_starts(width, wide, overlap)
        ]
        weight = blend_weights(tall, wide).to(x_t)
        total, norm = torch.zeros_like(x_t), torch.zeros_like(x_t[:, :1])
        for first in range(0, len(corners), batch):
            chunk = corners[first : first + batch]
            times = t[[i for i, _, _ in chunk]]
            out = denoiser(cond.windows(chunk, tall, wide))(crops(x_t, chunk, tall, wide), times)
            for piece, (i, r, c) in zip(out, chunk, strict=True):
                total[i, :, r : r + tall, c : c + wide] += weight * piece
                norm[i, :, r : r + tall, c : c + wide] += weight
        return total / norm

    return denoise
