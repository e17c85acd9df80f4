"""Noise of magnitude images (MR): its level from the air, and how much less of it dark tissue has."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import hyp1f1

from cdm4mi.measure.noise_blocks import Array, Blocks

MOST_COILS = 3
"""Air of more cannot be told from flat dark tissue."""
LEAST_RATIO = 0.7
"""Of air; that of one coil is 0.785, and less where its level varies."""
ALIKE = 0.4
"""Air is what has the middle mean square of the dark blocks, up to this share more or less."""
LEAST_BLOCKS = 30
NEGATIVE = 1e-3
"""A magnitude has no negative values, but for a few that interpolation makes."""


class Air(NamedTuple):
    """sigma: standard deviation in the real and the imaginary part of each coil; coils: how many."""

    sigma: float
    coils: int


def air_noise(dark: Blocks) -> Air | None:
    """The noise of the air around the patient, where it is distributed as that of a magnitude: else None.

    Of L coils M^2 has the mean 2 L sigma^2 (Gudbjartsson and Patz 1995; Constantinides et al. 1997), and the square of
    the mean of M over the mean of M^2 depends on L alone.
    """
    if len(dark) < LEAST_BLOCKS or (dark.images < 0).mean() > NEGATIVE:
        return None
    middle = float(np.median(dark.square))
    air = dark[np.abs(dark.square - middle) < ALIKE * middle]
    if len(air) < LEAST_BLOCKS:
        return None
    ratio = float(air.mean.mean() ** 2 / air.square.mean())
    expected = [float(mean_of_magnitude(0.0, coils)) ** 2 / (2 * coils) for coils in range(1, MOST_COILS + 2)]
    for coils, (this, more) in enumerate(pairwise(expected), 1):
        if LEAST_RATIO <= ratio < (this + more) / 2:
            return Air(math.sqrt(middle / (2 * coils)), coils)
    return None


def mean_of_magnitude(signal: float | Array, coils: int) -> Array:
    """Mean of the magnitude of a signal with unit noise in the parts of so many coils: non-central chi distribution.

    Constantinides et al. 1997, doi:10.1002/mrm.1910380524, eq. 4.
    """
    scale = math.sqrt(math.pi / 2) * math.prod((2 * k - 1) / (2 * k) for k in range(1, coils)) * (2 * coils - 1)
    mean: Array = scale * hyp1f1(-0.5, coils, -np.square(signal) / 2)
    return mean


def variance_of_magnitude(square: Array, sigma: float | Array, coils: int) -> Array:
    """Variance of a magnitude over sigma^2, by the mean of its square: 1 where the signal is strong, 0.43 in air.

    Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016, eq. 9, for one coil; here for several.
    """
    signal = np.sqrt(np.maximum(square / np.square(sigma) - 2 * coils, 0))
    at = np.linspace(0, 20, 401)
    variance = 2 * coils + at**2 - np.square(mean_of_magnitude(at, coils))
    found: Array = np.interp(signal, at, variance)
    return found
