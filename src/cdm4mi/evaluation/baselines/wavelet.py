"""Wavelet shrinkage. Needs PyWavelets, which is not installed with this project."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import restoration

from cdm4mi.evaluation.baselines.baseline import Baseline

SHIFTS = 4


@dataclass(frozen=True)
class WaveletSettings:
    """The wavelet by PyWavelets' name, and the sigma that is assumed over the noise's."""

    name: str = "db2"
    factor: float = 1.0


def _denoise(y: NDArray[np.float32], sigma: float, settings: WaveletSettings) -> NDArray[Any]:
    """BayesShrink soft thresholding (Chang et al. 2000), averaged over 4 x 4 shifts (Coifman and Donoho 1995)."""
    low, high = float(y.min()), float(y.max())
    if low == high:
        return y
    scaled = (y - low) / (high - low)  # the threshold is applied, and clipped, on [0, 1]
    assumed = settings.factor * sigma / (high - low)
    out = np.zeros_like(scaled)
    for shift in itertools.product(range(SHIFTS), repeat=2):
        shifted = np.roll(scaled, shift, (0, 1))
        clean = restoration.denoise_wavelet(shifted, assumed, wavelet=settings.name, rescale_sigma=False)
        out += np.roll(clean, (-shift[0], -shift[1]), (0, 1)) / SHIFTS**2
    return out * (high - low) + low


GRID = [
    WaveletSettings(*point)
    for point in itertools.product(("db2", "sym4"), (0.6, 0.75, 0.9, 1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.2))
]
wavelet = Baseline("wavelet", _denoise, WaveletSettings(), GRID, "pywt", "install it: pip install PyWavelets")
