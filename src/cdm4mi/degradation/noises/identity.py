"""No simulated noise: for pairs of real noisy and clean scans."""

from __future__ import annotations

from typing import Literal

from cdm4mi.degradation.base import Degradation, Frame, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch


@noise
class Identity(Degradation):
    """y = x0. Beside a real noisy image the level is that image's difference to the clean one, measured."""

    type: Literal["identity"] = "identity"

    def draw(self, generator: torch.Generator) -> float:
        """Nothing is drawn: 0."""
        return 0.0

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        return x0.clone()
