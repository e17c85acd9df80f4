"""How well the best of all observers sees a known lesion in noise: the prewhitening matched filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PASSED = 0.01
"""Share of the mean noise power, above which a frequency is taken for one that the scanner passes."""


def noise_density(regions: NDArray[np.floating], side: int) -> Array:
    """Power spectrum of noise (side, side) in value^2 pixels^2, the zero frequency at [0, 0] (``numpy.fft.fft2``).

    regions: (N, rows, columns) of noise with mean zero, at most ``side`` wide; a Hann window keeps what is strong at
    one frequency out of the others. White noise of variance s^2 has s^2 everywhere.
    """
    window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in regions.shape[-2:]))
    power = np.abs(np.fft.fft2(regions * window, s=(side, side))) ** 2
    density: Array = power.mean(axis=0) / np.sum(window**2)
    return density


def ideal_detectability(signal: NDArray[np.floating], density: Array) -> float:
    """d' of the prewhitening matched filter: d'^2 = integral of |S|^2 / NPS over the spatial frequencies.

    signal: (side, side), the difference that the lesion makes; density: of ``noise_density``, of the same shape. In
    stationary Gaussian noise no observer does better, and nothing that is computed from the image, such as a
    restoration, lets one do better (ICRU Report 54, 1996; Barrett and Myers, Foundations of Image Science, 2004,
    section 13.2).

    Frequencies at which the noise has less than ``PASSED`` of its mean power do not count: a reconstruction that lets
    no noise through there lets no lesion through either, but one that is drawn into the image has a trace of it.
    """
    power = np.abs(np.fft.fft2(signal)) ** 2
    passed = density >= PASSED * density.mean()
    return float(np.sqrt(np.sum(power[passed] / density[passed]) / signal.size))
