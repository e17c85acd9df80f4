"""Salt and pepper: a fraction of the pixels lost to the ends of the scale."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.lazy_torch import F, Tensor, torch
from cdm4mi.section import FractionRange

PEPPER_SHARE = {"both": 0.5, "salt": 0.0, "pepper": 1.0}
"""Share of the lost pixels that become -1; the others become 1."""


@noise
class SaltAndPepper(Degradation):
    """A fraction of the pixels, each by itself, becomes -1 or 1; a range is drawn from uniform in its logarithm."""

    type: Literal["salt_and_pepper"] = "salt_and_pepper"
    fraction: FractionRange = Field(0.05, description="share of the pixels")
    extremes: Literal["both", "salt", "pepper"] = Field(
        "both", description="salt (lost to the upper end only), pepper (to the lower) or both (equally likely)"
    )

    def draw(self, generator: torch.Generator) -> float:
        """The fraction of the pixels."""
        return draw_log_uniform(self.fraction, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        u = torch.rand(x0.shape, generator=generator, device=generator.device).to(x0.device)
        pepper = parameter * PEPPER_SHARE[self.extremes]
        return torch.where(u < parameter, torch.where(u < pepper, -1.0, 1.0), x0)

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """The median over 3 x 3 pixels, which lost pixels hardly move."""
        square = F.pad(y.flatten(0, -3)[:, None], (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
        return square.flatten(-2).median(-1).values.reshape(y.shape)

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float]:
        return 0.0, 0.0
