"""Salt and pepper: a fraction of the pixels lost to the ends of the scale."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform

PEPPER_SHARE = {"both": 0.5, "salt": 0.0, "pepper": 1.0}
"""Share of the lost pixels that become -1; the others become 1."""


class SaltAndPepper(Degradation[float]):
    """A fraction of the pixels, each by itself, becomes -1 or 1.

    fraction: 0 to 1, or a (least, most) range, drawn uniform in its logarithm. extremes: ``both``, equally likely;
    ``salt``, 1 only; ``pepper``, -1 only.
    """

    name = "salt_and_pepper"

    def __init__(self, fraction: Range = 0.05, extremes: Literal["both", "salt", "pepper"] = "both") -> None:
        self.bounds = bounds_of(fraction, "fraction", most=1.0)
        self.pepper = PEPPER_SHARE[extremes]

    def draw(self, generator: torch.Generator) -> float:
        """The fraction of the pixels."""
        return draw_log_uniform(self.bounds, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        u = torch.rand(x0.shape, generator=generator, device=generator.device).to(x0.device)
        return torch.where(u < parameter, torch.where(u < parameter * self.pepper, -1.0, 1.0), x0)

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """The median over 3 x 3 pixels, which lost pixels hardly move."""
        square = F.pad(y.flatten(0, -3)[:, None], (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
        return square.flatten(-2).median(-1).values.reshape(y.shape)
