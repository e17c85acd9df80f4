"""Speckle: Gaussian noise in proportion to the value of the pixel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.section import NonNegativeRange


@noise
class Speckle(Degradation):
    """I (1 + s n) for the intensity I above the window's lower end, which is x0 + 1 on [-1, 1].

    The standard deviation s is drawn uniform in its logarithm. The level is the noise's root mean square over the
    image.
    """

    type: Literal["speckle"] = "speckle"
    relative: NonNegativeRange = Field(0.1, description="standard deviation as a share of the pixel's value")

    def draw(self, generator: torch.Generator) -> float:
        """The standard deviation as a share of the pixel's value."""
        return draw_log_uniform(self.relative, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        normal = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
        return x0 + parameter * (x0 + 1.0) * normal

    def level(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> float:
        return parameter * float((x0 + 1.0).square().mean().sqrt())

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float]:
        return 0.0, 0.0
