"""Several degradations, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame


class Composition(Degradation[tuple[Any, ...]]):
    """``a + b``: a acts on the clean image, b on what a made of it. The level is measured over the image."""

    name = "composition"

    def __init__(self, parts: Sequence[Degradation[Any]]) -> None:
        if not parts:
            raise ValueError("composition: found no part, expected at least one")
        self.parts = list(parts)
        self.whole_slice = any(part.whole_slice for part in parts)

    def draw(self, generator: torch.Generator) -> tuple[Any, ...]:
        """The parameter of each part."""
        return tuple(part.draw(generator) for part in self.parts)

    def apply(self, x0: Tensor, parameter: tuple[Any, ...], generator: torch.Generator, frame: Frame) -> Tensor:
        y = x0
        for part, own in zip(self.parts, parameter, strict=True):
            y = part.apply(y, own, generator, frame)
        return y

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """Each part undone, the last first; the level is that of all together."""
        for part in reversed(self.parts):
            y = part.unbiased(y, level, zero)
        return y

    def check(self, frame: Frame) -> None:
        for part in self.parts:
            part.check(frame)
