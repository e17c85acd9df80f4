"""The contract of every degradation: draw a parameter in physical terms, apply it to a clean image, say the level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cdm4mi.errors import UserError
from cdm4mi.intensity import IntensityWindow

Range = float | tuple[float, float]
"""One number, or the least and the most that a degradation's parameter is drawn from."""

P = TypeVar("P")
"""A degradation's parameter: a number in its physical terms; for a composition one for each part."""


@dataclass(frozen=True)
class Frame(IntensityWindow):
    """What [-1, 1] and a pixel mean in one image: its intensity window, and its ``spacing``.

    spacing: millimetres between neighbours along (rows, columns).
    """

    spacing: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, window: IntensityWindow, spacing: tuple[float, float] = (1.0, 1.0)) -> Frame:
        """The frame of an image with this window and pixel size."""
        return cls(window.low, window.high, window.modality, spacing)


class Degradation(ABC, Generic[P]):
    """Makes the condition y of a clean image x0. Decided by a torch.Generator alone; on the device of the image.

    name: as in a configuration. whole_slice: whether it means something only on the whole slice (projections,
    k-space), so that a patch is cut out afterwards. modalities: those that it is a model of.
    """

    name: str
    whole_slice: bool = False
    modalities: tuple[str | None, ...] = ("CT", "MR", "PT", "RGB", None)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> P:
        """Its parameter for one image, from the number or the range that it was made with."""

    @abstractmethod
    def apply(self, x0: Tensor, parameter: P, generator: torch.Generator, frame: Frame) -> Tensor:
        """x0 (..., H, W) on [-1, 1] to y of the same shape, scale and device; y is not clipped."""

    def level(self, x0: Tensor, y: Tensor, parameter: P, frame: Frame) -> float:
        """Standard deviation of y - x0 on [-1, 1], which a model is told: here measured, as a root mean square."""
        return float((y - x0).square().mean().sqrt())

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """An image whose mean over many pixels is that of x0: here y, for noise of mean zero.

        y: (..., H, W) on [-1, 1]; level: as ``level`` says; zero: what stands for the physical value 0 on [-1, 1].
        """
        return y

    def check(self, frame: Frame) -> None:
        """Refuse an image that this is no model of. Raises UserError."""
        if frame.modality not in self.modalities:
            known = " or ".join(m for m in self.modalities if m)
            raise UserError(f"noise {self.name}: found a {frame.modality} scan, expected {known}")


def draw_log_uniform(bounds: tuple[float, float], generator: torch.Generator, floor: float = 1e-4) -> float:
    """A number in [least, most], uniform in the logarithm; a range from 0 is drawn from ``floor`` upwards.

    Equal bounds take nothing from the generator.
    """
    low, high = bounds
    if low == high:
        return low
    u = float(torch.rand((), generator=generator))
    low = min(max(low, floor), high)
    drawn: float = low * (high / low) ** u
    return drawn


def bounds_of(value: Range, name: str, least: float = 0.0, most: float = math.inf) -> tuple[float, float]:
    """The pair (least, most) of a number or a range. Raises ValueError outside [``least``, ``most``]."""
    low, high = (value, value) if isinstance(value, (int, float)) else value
    if not least <= low <= high <= most:
        raise ValueError(f"{name}: found {low:g} to {high:g}, expected {least:g} <= least <= most <= {most:g}")
    return float(low), float(high)


def standard_normal(x0: Tensor, generator: torch.Generator) -> Tensor:
    """Unit Gaussian noise of the shape of x0: drawn where the generator is, then moved, so a GPU changes nothing."""
    return torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)
