"""No simulated noise: for pairs of real noisy and clean scans."""

from __future__ import annotations

from typing import Literal

from cdm4mi.degradation.base import BatchedNoise, Drawn, Frame, Numbers, RandomNumbers, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch


@noise
class Identity(BatchedNoise):
    """y = x0. Beside a real noisy image the level is that image's difference to the clean one, measured."""

    type: Literal["identity"] = "identity"

    def draw(self, generator: torch.Generator) -> float:
        """Nothing is drawn: 0."""
        return 0.0

    def numbers(self, parameter: float, frame: Frame) -> Numbers:
        return {}

    def add(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        return x0.clone()
