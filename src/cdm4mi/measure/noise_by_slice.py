"""Noise of each slice of a stack, where it differs from slice to slice: in a low-dose CT with the patient's width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdm4mi.measure.noise_blocks import Array, Blocks
from cdm4mi.measure.noise_spectrum import noise_spectrum

LEAST_BLOCKS = 100
"""A slice with fewer is not measured."""
FLAT = 0.1
"""Share of a slice's blocks that are taken for free of anatomy; the very flattest are where its noise is least."""
UNLIKE = 0.15
"""Standard deviation of the levels' logarithm from which they differ: of equal noise it is 0.05 at most."""
LEAST_SMOOTHED = 5
"""Slices from which one that is unlike its neighbours is taken for broken: empty, filled in, or measured wrongly."""


def slice_sigmas(blocks: Blocks) -> Array | None:
    """Standard deviation of the noise in each slice (N,) of blocks that show the patient.

    Each slice has a spectrum of its own: streaks differ from slice to slice, and of slices taken together what differs
    is taken for anatomy. A slice of few blocks has its neighbours' level, and so has, of several, one that is unlike
    both neighbours. None where the slices are alike within what the measurement errs.
    """
    numbers = np.arange(len(blocks.images))
    groups = {k: blocks[here] for k in numbers if (here := blocks.corners[:, 0] == k).sum() >= LEAST_BLOCKS}
    # where the least variance of a block is the same in all slices, so is the noise
    least = [np.sqrt(np.quantile(group.square - np.square(group.mean), FLAT)) for group in groups.values()]
    if not _unlike(np.array(least), UNLIKE / 2):
        return None
    spectra = [noise_spectrum(group.periodograms(), group.side, flattest=FLAT) for group in groups.values()]
    sigmas = np.sqrt([spectrum.variance for spectrum in spectra])
    if not _unlike(sigmas, UNLIKE):
        return None
    return between(numbers, np.array(list(groups)), _smoothed(sigmas))


def between(slices: NDArray[np.intp], measured: NDArray[np.intp], sigmas: Array) -> Array:
    """Levels at slices, from those measured at some: linear in the logarithm, constant beyond the ends."""
    found: Array = np.exp(np.interp(slices, measured, np.log(sigmas)))
    return found


def _unlike(sigmas: Array, most: float) -> bool:
    return len(sigmas) > 1 and bool(sigmas.min() > 0) and float(np.std(np.log(_smoothed(sigmas)))) > most


def _smoothed(sigmas: Array) -> Array:
    """Medians of three, with Tukey's rule at the ends (Exploratory Data Analysis, 1977, chapter 7)."""
    if len(sigmas) < LEAST_SMOOTHED:
        return sigmas
    middle = np.median([sigmas[:-2], sigmas[1:-1], sigmas[2:]], 0)
    logs = np.log(np.maximum([middle[0], middle[1], middle[-1], middle[-2]], 1e-300))
    first, last = np.exp(3 * logs[0] - 2 * logs[1]), np.exp(3 * logs[2] - 2 * logs[3])
    ends = np.median([[sigmas[0], middle[0], first], [sigmas[-1], middle[-1], last]], 1)
    smooth: Array = np.concatenate([ends[:1], middle, ends[1:]])
    return smooth
