"""Low frequencies of a restored slice taken from the scan, so that means over large areas do not drift."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cdm4mi.measure.noise_level import NoiseEstimate

EDGE = 0.5
"""Standard deviation of the Gaussian edge of the filter, over the cut-off."""
AREA = math.pi * (1 + EDGE**2 + math.sqrt(math.pi) * EDGE)
"""The integral of H^2 over the plane of frequencies, for a cut-off of 1."""
NOISE_BACK = 0.05
"""Share of the noise's standard deviation that may come back with the frequencies, where no cut-off is given."""
LEAST, MOST = 0.005, 0.05
"""Cycles a pixel between which that cut-off lies: areas of 200 and of 20 pixels."""


def keep_low_frequencies(restored: NDArray[Any], scan: NDArray[Any], cutoff: float) -> NDArray[np.float32]:
    """Replace the low frequencies of restored images (..., rows, columns) by those of the scan.

    restored + H (scan - restored), in the images' units. H is 1 up to ``cutoff`` (cycles a pixel) and falls off beyond
    as a Gaussian, exp(-(f - cutoff)^2 / (2 (EDGE cutoff)^2)), as a sharp end would ring about edges. The images are
    mirrored at their borders (discrete cosine transform), so that opposite borders do not mix.
    """
    response = low_pass((restored.shape[-2], restored.shape[-1]), cutoff)
    difference = fft.dctn(np.subtract(scan, restored, dtype=np.float64), axes=(-2, -1), norm="ortho")
    kept: NDArray[np.float32] = (restored + fft.idctn(response * difference, axes=(-2, -1), norm="ortho")).astype(
        np.float32
    )
    return kept


def low_pass(shape: tuple[int, int], cutoff: float) -> NDArray[np.float64]:
    """The filter H of ``keep_low_frequencies``, by the frequencies of the discrete cosine transform (rows, columns)."""
    rows, columns = (np.arange(n) / (2 * n) for n in shape)
    beyond = np.maximum(np.hypot(rows[:, None], columns) - cutoff, 0)
    response: NDArray[np.float64] = np.exp(-0.5 * np.square(beyond / (EDGE * cutoff)))
    return response


def noise_back(cutoff: float, noise: NoiseEstimate) -> float:
    """Standard deviation of the noise that comes back with the frequencies, over that of the noise.

    Correlated neighbours raise the noise's power at low frequencies, as in an autoregression of first order along rows
    and columns.
    """
    return min(1.0, cutoff * math.sqrt(AREA * _power(noise)))


def usual_cutoff(noise: NoiseEstimate) -> float:
    """The cut-off (cycles a pixel) with which ``NOISE_BACK`` of the noise comes back, from ``LEAST`` to ``MOST``."""
    return min(MOST, max(LEAST, NOISE_BACK / math.sqrt(AREA * _power(noise))))


def _power(noise: NoiseEstimate) -> float:
    """The noise's power at low frequencies over that of white noise of its variance."""
    return math.prod((1 + c) / (1 - c) for c in (min(0.9, max(0.0, c)) for c in noise.correlations))
