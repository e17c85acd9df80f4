"""A denoiser on windows of a large image, their estimates fused into one at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Estimate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""x0_hat = f(x_t, t, y, level): images (N, C, H, W), times (N,), condition (N, C, H, W), levels (N,)."""


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


class TiledEstimate:
    """Makes ``estimate`` see windows of at most tile x tile pixels, ``batch`` at a time, and blends what it returns.

    The result is a function of the images alone: not of the order of the windows or of ``batch``. A tile as large as
    the image is one plain call. tile: a multiple of what the network needs.
    """

    def __init__(self, estimate: Estimate, tile: int, overlap: float, batch: int = 16) -> None:
        self.estimate, self.tile, self.overlap, self.batch = estimate, tile, overlap, batch

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor, level: Tensor) -> Tensor:
        n, _, height, width = x_t.shape
        if self.tile >= height and self.tile >= width:
            return self.estimate(x_t, t, y, level)
        tall, wide = min(self.tile, height), min(self.tile, width)
        places = [
            (i, row, column)
            for i in range(n)
            for row in window_starts(height, tall, self.overlap)
            for column in window_starts(width, wide, self.overlap)
        ]
        weight = blend_weights(tall, wide).to(x_t)
        total, norm = torch.zeros_like(x_t), torch.zeros_like(x_t[:, :1])
        for first in range(0, len(places), self.batch):
            chunk = places[first : first + self.batch]
            index = torch.tensor([i for i, _, _ in chunk], device=x_t.device)

            def cut(image: Tensor, chunk: list[tuple[int, int, int]] = chunk) -> Tensor:
                return torch.stack([image[i, :, r : r + tall, c : c + wide] for i, r, c in chunk])

            out = self.estimate(cut(x_t), t[index], cut(y), level[index])
            for piece, (i, r, c) in zip(out, chunk, strict=True):
                total[i, :, r : r + tall, c : c + wide] += weight * piece
                norm[i, :, r : r + tall, c : c + wide] += weight
        return total / norm
