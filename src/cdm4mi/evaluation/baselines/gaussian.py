"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.evaluation.baselines.image import checked


@dataclass(frozen=True)
class GaussianSettings:
    """Standard deviation of the blur in pixels."""

    width: float = 1.0


GRID = [GaussianSettings(width) for width in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)]


def gaussian_filter(y: NDArray[Any], sigma: float, settings: GaussianSettings = GaussianSettings()) -> NDArray[Any]:
    """(rows, columns) in any units to float32; ``sigma`` of the noise only says whether there is anything to do."""
    y = checked(y, sigma)
    return y if sigma == 0 else ndimage.gaussian_filter(y, settings.width, mode="nearest")
