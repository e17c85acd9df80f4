"""No noise of its own: for pairs of real noisy and clean scans."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame


class Identity(Degradation[float]):
    """y = x0. Beside a real noisy image the level is that image's difference to the clean one, measured."""

    name = "identity"

    def draw(self, generator: torch.Generator) -> float:
        """Nothing is drawn: 0."""
        return 0.0

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        return x0.clone()
