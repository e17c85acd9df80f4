"""White Gaussian noise: its variance stated on [-1, 1], or its standard deviation in HU or percent of the tissue."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform, standard_normal

Unit = Literal["variance", "sigma_hu", "percent"]


class GaussianNoise(Degradation[float]):
    """y = x0 + sigma n. The parameter is the standard deviation, drawn uniform in its logarithm.

    value: one number or a (least, most) range, in terms of ``unit``: the ``variance`` on [-1, 1]; the standard
    deviation in HU (CT only); or in percent of the reference (the window's upper end; not for CT, whose zero is
    arbitrary). y is not clipped: the noise stays Gaussian where the image touches -1 or 1.
    """

    name = "gaussian"

    def __init__(self, value: Range, unit: Unit = "variance") -> None:
        low, high = bounds_of(value, unit)
        self.unit = unit
        self.bounds = (math.sqrt(low), math.sqrt(high)) if unit == "variance" else (low, high)
        if unit == "sigma_hu":
            self.modalities = ("CT",)
        elif unit == "percent":
            self.modalities = ("MR", "PT", None)

    def draw(self, generator: torch.Generator) -> float:
        """A standard deviation: on [-1, 1], in HU, or in percent."""
        return draw_log_uniform(self.bounds, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        return x0 + self.deviation(parameter, frame) * standard_normal(x0, generator)

    def level(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> float:
        return self.deviation(parameter, frame)

    def deviation(self, parameter: float, frame: Frame) -> float:
        """The standard deviation on [-1, 1]."""
        if self.unit == "variance":
            return parameter
        return parameter * frame.scale * (1.0 if self.unit == "sigma_hu" else frame.high / 100)
