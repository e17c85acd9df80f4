"""Power spectrum of noise from flat blocks: measured where anatomy is little, continued to where it is much."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from cdm4mi.measure.noise_blocks import LEAST, Array, hann, of_white_noise, shares

FLATTEST = 0.03
"""Share of the blocks that the spectrum is measured in where the noise is even."""
LOW, HIGH = 0.05, 0.2
"""Quantiles of blocks whose ratio says how alike they are."""
TOLERANCE = 0.3
"""Logarithm of the excess of that ratio over noise alone at which frequencies count as anatomy."""
DOUBT = 0.02
"""Weight of these."""
FLOOR = 0.05
"""Share of the mean power below which differences do not matter."""
ROUNDS = 4
BETTER = 0.5
"""Share of the other family's misfit with which a ramp is believed."""
UNLIKELY = 0.1
"""Cost of a logarithm of the share of anatomy, of that of a misfit, where all blocks are alike."""
SLOPES = 2.5, 4.5
"""Of the power of anatomy over frequency."""
EXCESS = 0.3
"""Logarithm of the power above the fitted one at which it is half believed."""


@dataclass(frozen=True)
class Spectrum:
    """power: (side // 2 + 1, side // 2 + 1) of one quadrant, in squared units; weights: of every frequency, 0 to 1, how
    far the noise can be seen there; purity: their mean over the power."""

    power: Array
    weights: Array
    side: int

    @property
    def variance(self) -> float:
        return float((self.power * shares(self.side)).sum())

    @property
    def correlations(self) -> tuple[float, float]:
        """Of pixels that are neighbours: (next row, next column)."""
        weights = self.power * shares(self.side)
        cosine = np.cos(2 * np.pi * np.arange(len(self.power)) / self.side)
        total = weights.sum()
        return float((weights * cosine[:, None]).sum() / total), float((weights * cosine).sum() / total)

    def energies(self, periodograms: Array) -> Array:
        """Of every block its power over that of the noise, 1 on average for noise alone."""
        energy: Array = np.tensordot(periodograms, self._detector / self.power, 2)
        return energy

    def noise_energies(self) -> Array:
        """Those of noise alone."""
        energy: Array = np.tensordot(of_white_noise(self.side), self._detector, 2)
        return energy

    @property
    def _detector(self) -> Array:
        """Weight of every frequency, of sum 1: that of the noise, where it has power."""
        weights = self.weights * shares(self.side)
        weights = weights * self.power / (self.power + FLOOR * (weights * self.power).sum() / weights.sum())
        detector: Array = weights / weights.sum()
        return detector


def noise_spectrum(periodograms: Array, side: int, magnitude: bool = False, flattest: float = FLATTEST) -> Spectrum:
    """The spectrum of what is alike in the flattest of the blocks (N, side // 2 + 1, side // 2 + 1).

    Several times over: in each band of frequencies, how far blocks are alike, by the ratio of two low quantiles; of
    each block, its power where they are; and the mean over the blocks with the least, divided by what this choice
    leaves of noise alone. Where anatomy differs from block to block (low frequencies, mostly), the spectrum is that of
    the noise in the fit of noise and anatomy to the rest.

    magnitude: of MR, whose noise has no ramp filter's spectrum. flattest: share of the blocks, at least ``LEAST``.
    """
    part = min(1.0, max(flattest, LEAST / len(periodograms)))
    power = np.maximum(np.median(periodograms, 0), 1e-300)
    purity = weights = _visible(side)
    for _ in range(ROUNDS):
        purity = _purity(periodograms / power, side)
        weights = _visible(side) * np.maximum(DOUBT, purity)
        spectrum = Spectrum(power, weights, side)
        energy, alone = spectrum.energies(periodograms), spectrum.noise_energies()
        expected = alone[alone <= np.quantile(alone, part)].mean() / alone.mean()
        flat = periodograms[energy <= np.quantile(energy, part)]
        power = np.maximum(flat.mean(0) / expected, 1e-300)
    noise, anatomy, trust = _fit(power, weights, side, magnitude)
    ratio = power / np.maximum(noise + anatomy, 1e-300)
    return Spectrum(np.maximum(noise * ratio ** (trust * purity * _visible(side)), 1e-300), weights, side)


@functools.cache
def _visible(side: int) -> Array:
    """0 for the frequencies that the plane was taken from, else 1."""
    index = np.arange(side // 2 + 1)
    return np.where(np.maximum(index[:, None], index) <= 1, 0.0, 1.0)


@functools.cache
def _bands(side: int) -> NDArray[np.intp]:
    """Of every frequency the number of its band: rings, and in these along rows, between, and along columns."""
    index = np.arange(side // 2 + 1) * (16 / side)
    y, x = index[:, None], index
    ring = np.digitize(np.maximum(y, x), (1.5, 2.5, 3.5, 4.5, 6.5))
    sector = np.where(x > 2 * y, 2, np.where(y > 2 * x, 0, 1))
    _, numbers = np.unique(3 * ring + sector, return_inverse=True)
    bands: NDArray[np.intp] = numbers.reshape(ring.shape)
    return bands


def _purity(whitened: Array, side: int) -> Array:
    """Of every frequency how far blocks are alike there as noise is: 1, to 0 where they differ as anatomy does."""
    bands, share = _bands(side), shares(side)
    purity = np.empty(share.shape)
    for band in range(bands.max() + 1):
        weights = share * (bands == band)
        ratios = []
        for blocks in (whitened, of_white_noise(side)):
            low, high = np.quantile(np.tensordot(blocks, weights, 2), (LOW, HIGH))
            ratios.append(np.log(high / max(low, 1e-300)))
        purity[bands == band] = np.clip(1 - (ratios[0] - ratios[1]) / TOLERANCE, 0, 1)
    return purity


def _fit(power: Array, weights: Array, side: int, magnitude: bool) -> tuple[Array, Array, Array]:
    """Noise of the families of spectra and anatomy, a power law, that together come closest to ``power``.

    Returns the noise, the anatomy, and of every frequency 1 where the measured power is no more than both, towards 0
    where it is much more: anatomy only adds, and what exceeds a fit counts less in the next.
    """
    purity, weights = weights, weights * shares(side) / (weights * shares(side)).sum()
    prior = UNLIKELY * np.sqrt(weights * purity)  # where blocks are alike, anatomy is not much of the power
    mean = float((weights * power).sum())
    floor = FLOOR * mean
    trust = np.ones_like(power)

    def parts(family: Family, numbers: Array) -> tuple[Array, Array]:
        scale, share, slope, *rest = numbers
        noise: Array = mean * seen(np.exp(scale) * family.power(*grid(), *rest), side)
        anatomy: Array = mean * seen(np.exp(share) * _power_law(*grid(), slope), side)
        return noise, anatomy

    def fitted(family: Family, start: Array, most: int) -> tuple[float, Family, Array]:
        root = np.sqrt(weights * trust)

        def residuals(numbers: Array) -> Array:
            noise, anatomy = parts(family, numbers)
            misfit = root * np.log((power + floor) / (noise + anatomy + floor))
            unlikely = prior * np.log1p(anatomy / (noise + floor))
            found: Array = np.concatenate([misfit.ravel(), unlikely.ravel()])
            return found

        result = least_squares(
            residuals,
            start,
            bounds=([-20, -20, SLOPES[0], *family.least], [20, 20, SLOPES[1], *family.most]),
            max_nfev=most,
        )
        return float(result.cost), family, result.x

    def best(family: Family) -> tuple[float, Family, Array]:
        fits = []
        for numbers in family.starts:
            scale = float((weights * seen(family.power(*grid(), *numbers), side)).sum())
            start = np.array([-np.log(max(scale, 1e-8)), -6.0, sum(SLOPES) / 2, *numbers])
            fits.append(fitted(family, start, 30))
        return min(fits, key=lambda fit: fit[0])

    cost, family, numbers = best(STRETCHED)
    if not magnitude:  # with anatomy beside it a ramp can look white: it has to be much the better
        other = best(RAMP)
        if other[0] < BETTER * cost:
            _, family, numbers = other
    for _ in range(ROUNDS):
        excess = np.log((power + floor) / (sum(parts(family, numbers)) + floor))
        trust = 1 / (1 + (np.maximum(excess, 0) / EXCESS) ** 2)
        _, family, numbers = fitted(family, numbers, 10)
    noise, anatomy = parts(family, numbers)
    return noise, anatomy, np.asarray(trust, np.float64)


GRID = 32
"""Frequencies along each axis at which a spectrum is evaluated: twice as many as the largest block has pixels."""


@functools.cache
def grid() -> tuple[Array, Array]:
    """Frequencies of one quadrant along rows' index and columns' index, cycles per pixel."""
    f = np.arange(GRID // 2 + 1) / GRID
    return f[:, None], f[None, :]


def seen(power: Array, side: int) -> Array:
    """What periodograms of blocks show on average of noise with this power on ``grid``."""
    half = side // 2 + 1
    shown: Array = (_leakage(side) @ power.ravel()).reshape(half, half)
    return shown


@functools.cache
def _leakage(side: int) -> Array:
    """(frequencies of a block, frequencies of ``grid``): the window's own power, shifted to every frequency."""
    padded = np.zeros((GRID, GRID))
    padded[:side, :side] = hann(side)
    window = np.abs(np.fft.fft2(padded)) ** 2 / GRID**2
    shifts = np.arange(side // 2 + 1) * (GRID // side)
    shifted = np.stack([np.roll(window, (y, x), (0, 1)) for y in shifts for x in shifts])
    half = GRID // 2 + 1
    for axis in (1, 2):  # a spectrum is the same at -f
        folded, mirrored = np.split(np.moveaxis(shifted, axis, 0), [half])
        folded[1 : half - 1] += mirrored[::-1]
        shifted = np.moveaxis(folded, 0, axis)
    leakage: Array = shifted.reshape(len(shifted), -1)
    return leakage


def _power_law(fy: Array, fx: Array, slope: float) -> Array:
    """Anatomy: edges have the slope 3, and what is alike at all scales 2."""
    f = np.sqrt(fy**2 + fx**2)
    return (np.maximum(f, 0.5 / GRID) / 0.125) ** -slope


def _stretched(fy: Array, fx: Array, y: float, x: float, order: float) -> Array:
    """White, smoothed by a Gaussian (order 2), or cut at a frequency (a high order)."""
    return np.exp(-(np.abs(2 * y * fy) ** order) - np.abs(2 * x * fx) ** order)


def _ramp(fy: Array, fx: Array, decay: float, order: float, streaks: float) -> Array:
    """Filtered backprojection (``degradation.spectra.CTKernel`` and ``Streaks``), in terms that fit well."""
    square = fy**2 + fx**2
    f = np.sqrt(square)
    along = (fx**2 - fy**2) / np.maximum(square, 1e-12)
    return (f + 0.01) * np.exp(-((2 * decay * f) ** order) + streaks * along)


class Family(NamedTuple):
    """A function of frequencies and numbers; where to start from; least and most of the numbers."""

    power: Callable[..., Array]
    starts: list[list[float]]
    least: list[float]
    most: list[float]


STRETCHED = Family(_stretched, [[0.3, 0.3, 2.0], [1.5, 1.5, 3.0]], [0, 0, 1.5], [8, 8, 16])
RAMP = Family(_ramp, [[1.0, 2.0, 0.0], [2.5, 3.0, 0.0]], [0, 1, -2], [8, 8, 2])
