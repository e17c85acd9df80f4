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
"""Share of the blocks that the spectrum is measured in; at least ``LEAST``."""
LOW, HIGH = 0.05, 0.2
"""Quantiles of blocks whose ratio says how alike they are."""
TOLERANCE = 0.3
"""Logarithm of the excess of that ratio over noise alone at which frequencies count as anatomy."""
DOUBT = 0.02
"""Weight of these."""
FLOOR = 0.05
"""Share of the mean power below which differences do not matter."""
ROUNDS = 4
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
        return weights / weights.sum()


def noise_spectrum(periodograms: Array, side: int) -> Spectrum:
    """The spectrum of what is alike in the flattest of the blocks (N, side // 2 + 1, side // 2 + 1).

    In turn: how far blocks are alike in each band of frequencies, by the ratio of two low quantiles; each block's power
    in these; the mean over the blocks with least, over what selection leaves of noise alone. Where anatomy differs from
    block to block (low frequencies, mostly) the spectrum is that of the family that fits the rest, unless less was found.
    """
    part = min(1.0, max(FLATTEST, LEAST / len(periodograms)))
    power = np.maximum(np.median(periodograms, 0), 1e-300)
    purity = weights = _visible(side)
    for _ in range(ROUNDS):
        purity = _purity(periodograms / power, side)
        weights = _visible(side) * np.maximum(DOUBT, purity)
        spectrum = Spectrum(power, weights, side)
        energy, alone = spectrum.energies(periodograms), spectrum.noise_energies()
        flattest = energy <= np.quantile(energy, part)
        expected = alone[alone <= np.quantile(alone, part)].mean() / alone.mean()
        power = np.maximum(periodograms[flattest].mean(0) / expected, 1e-300)
    fitted, trust = _fit(power, weights, side)
    trust = trust * purity
    joined = np.exp(trust * np.log(power) + (1 - trust) * np.log(np.clip(fitted, 1e-300, power)))
    return Spectrum(joined, weights, side)


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


def _fit(power: Array, weights: Array, side: int) -> tuple[Array, Array]:
    """The member of the families of spectra that comes closest where noise can be seen, and how far it is exceeded.

    Of every frequency 1 where the measured power is no more than the fitted one, towards 0 where it is much more:
    anatomy only adds, and what exceeds a fit counts less in the next.
    """
    weights = weights * shares(side) / (weights * shares(side)).sum()
    mean = float((weights * power).sum())
    floor = FLOOR * mean
    trust = np.ones_like(power)

    def of(family: Family, numbers: Array) -> Array:
        found: Array = mean * seen(np.exp(numbers[0]) * family.power(*grid(), *numbers[1:]), side)
        return found

    def fitted(family: Family, start: Array, most: int) -> tuple[float, Family, Array]:
        root = np.sqrt(weights * trust)
        result = least_squares(
            lambda numbers: (root * np.log((power + floor) / (of(family, numbers) + floor))).ravel(),
            start,
            bounds=([-20, *family.least], [20, *family.most]),
            max_nfev=most,
        )
        return float(result.cost), family, result.x

    starts = []
    for family in FAMILIES:
        for start in family.starts:
            scale = float((weights * seen(family.power(*grid(), *start), side)).sum())
            starts.append((family, np.array([-np.log(max(scale, 1e-8)), *start])))
    _, family, numbers = min((fitted(family, start, 30) for family, start in starts), key=lambda fit: fit[0])
    for _ in range(ROUNDS):
        excess = np.log((power + floor) / (of(family, numbers) + floor))
        trust = 1 / (1 + (np.maximum(excess, 0) / EXCESS) ** 2)
        _, family, numbers = fitted(family, numbers, 10)
    return of(family, numbers), trust


GRID = 64


@functools.cache
def grid() -> tuple[Array, Array]:
    """Frequencies along rows' index and columns' index, cycles per pixel."""
    f = np.fft.fftfreq(GRID)
    return f[:, None], f[None, :]


def seen(power: Array, side: int) -> Array:
    """What periodograms of blocks show on average of noise with this power on ``grid``."""
    covariance = np.fft.ifft2(power).real * _window_overlap(side)
    half = side // 2 + 1
    shown = np.fft.fft2(covariance).real
    index = np.round(np.arange(half) * GRID / side).astype(int)
    found: Array = np.maximum(shown[np.ix_(index, index)], 0)
    return found


@functools.cache
def _window_overlap(side: int) -> Array:
    """Autocorrelation of the window on ``grid``'s torus."""
    padded = np.zeros((GRID, GRID))
    padded[:side, :side] = hann(side)
    overlap: Array = np.fft.ifft2(np.abs(np.fft.fft2(padded)) ** 2).real
    return overlap


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


FAMILIES = [
    Family(_stretched, [[0.3, 0.3, 2.0], [1.5, 1.5, 3.0]], [0, 0, 1.5], [8, 8, 16]),
    Family(_ramp, [[1.0, 2.0, 0.0], [2.5, 3.0, 0.0]], [0, 1, -2], [8, 8, 2]),
]
