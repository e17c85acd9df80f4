"""Gaussian noise of a stated variance on [-1, 1], its level drawn from a range."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class GaussianNoise:
    """y = x0 + sigma n. ``variance``: one number, or a (least, most) range, drawn uniform in the logarithm of sigma.

    y is not clipped: the noise stays Gaussian where the image touches -1 or 1.
    """

    def __init__(self, variance: float | tuple[float, float]) -> None:
        low, high = (variance, variance) if isinstance(variance, (int, float)) else variance
        if not 0 <= low <= high:
            raise ValueError(f"variance range {low} to {high}: expected 0 <= least <= most")
        self.low, self.high = math.sqrt(low), math.sqrt(high)

    def draw_level(self, generator: torch.Generator) -> float:
        """A standard deviation on [-1, 1]."""
        if self.low == self.high:
            return self.low
        u = float(torch.rand((), generator=generator))
        low = max(self.low, 1e-4)  # a range from zero is drawn from the least level that float16 can show
        return low * (self.high / low) ** u

    def apply(self, x0: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """x0 of any shape on [-1, 1] to its noisy version at the standard deviation ``level``."""
        return x0 + level * torch.randn(x0.shape, generator=generator)
