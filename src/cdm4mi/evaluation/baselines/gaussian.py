"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.evaluation.baselines.baseline import Baseline


@dataclass(frozen=True)
class GaussianSettings:
    """Standard deviation of the blur in pixels; that of the noise does not count."""

    width: float = 1.0


def _denoise(y: NDArray[np.float32], sigma: float, settings: GaussianSettings) -> NDArray[Any]:
    return np.asarray(ndimage.gaussian_filter(y, settings.width, mode="nearest"))


GRID = [GaussianSettings(width) for width in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)]
gaussian_filter = Baseline("Gaussian filter", _denoise, GaussianSettings(), GRID)
