"""Speckle: Gaussian noise in proportion to the pixel's own value."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform, standard_normal


class Speckle(Degradation[float]):
    """I (1 + s n) for the intensity I above the window's lower end, which is x0 + 1 on [-1, 1].

    relative: the standard deviation s as a share of the pixel's value, or a (least, most) range, drawn uniform in its
    logarithm. The level is the noise's root mean square over the image.
    """

    name = "speckle"

    def __init__(self, relative: Range = 0.1) -> None:
        self.bounds = bounds_of(relative, "relative")

    def draw(self, generator: torch.Generator) -> float:
        """The standard deviation as a share of the pixel's value."""
        return draw_log_uniform(self.bounds, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        return x0 + parameter * (x0 + 1.0) * standard_normal(x0, generator)

    def level(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> float:
        return parameter * float((x0 + 1.0).square().mean().sqrt())
