"""Structure in a residual: standard scores of blobs, and of likeness to what the output shows; their local maxima."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import norm

from cdm4mi.io import arrays

SIZES = 4.0, 8.0, 16.0
"""Millimetres, full width at half maximum of the blobs that are looked for."""
WINDOW = 12.0
"""Millimetres, full width at half maximum of the surroundings in which contrast is compared."""
BOX = 16.0
"""Millimetres, side of the two box means, one of the other, that stand for the surroundings of a structure."""
FALSE_ALARMS = 0.01
"""Scans of noise alone that have a finding."""
STANDS_OUT = 2.0
"""Noise levels from which a structure of the output is one, and not what was left of the noise."""
LEAST_SCALE = 0.05
"""Share of the scores of white noise below which what varies is rounding."""
SHIFT = 24
"""Pixels by which the residual is shifted against the output, to see what scores chance gives."""
MOST_FINDINGS = 50
MOST_STUDIED = 2000
"""Local maxima of a map, the greatest, that are looked at: thousands are one mistake all over the scan."""
BINS, PER_LEVEL = 2000, 100
"""Of the histogram of the residual's magnitude, and how many a noise level has."""
AT_A_TIME = 2**22
"""Cells that are gone through at a time."""
WIDTH = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """A place with structure in the residual.

    kind: "structure" (something was removed or added) or "contrast" (a structure of the output is weaker, or stronger,
    than that of the input). position: (slice, row, column). score: standard score, noise alone has 0 +- 1. change: for
    "structure" the mean residual over the blob against its surroundings, positive where something bright was removed,
    in noise levels or, in a ``ResidualTest``, in the scan's units; for "contrast" the contrast that is missing, over
    what the output has. size: millimetres, full width at half maximum of the blob, or of the surroundings that were
    compared.
    """

    kind: str
    position: tuple[int, int, int]
    score: float
    change: float
    size: float


@dataclass(frozen=True)
class Structures:
    """What the scores of a scan say: the greatest magnitudes of blobs and of contrast, how many scores there are, and
    the findings, most striking first."""

    structure: float
    contrast: float
    scores: int
    findings: list[Finding]


class StructureSums:
    """Finds structure in the residual of a scan whose slices come one by one, in any order.

    What is kept of a slice are means over cells of at most one standard deviation of the blobs looked for. The cells of
    a scan of any length are arrays that may lie in files (``io.arrays``).
    """

    def __init__(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        """shape: slices, rows and columns of the scan; spacing: millimetres between them."""
        self.shape, self.spacing = shape, spacing
        self._box = [max(1, round(BOX / s)) for s in spacing[1:]]
        self._fine, self._coarse = (cell(size, spacing)[1:] for size in (SIZES[0], WINDOW))
        self._residual, self._within = (self._cells(self._fine) for _ in range(2))
        self._product, self._chance, self._signs, self._contrast = (self._cells(self._coarse) for _ in range(4))
        self._magnitudes = np.zeros(BINS + 1, np.int64)

    def add(self, k: int, residual: Array, output: Array, smooth: Array, within: NDArray[np.bool_]) -> None:
        """Add slice k (rows, columns) in noise levels.

        smooth: Gaussian mean of the output, of 1 pixel; within: the patient and what it encloses.
        """
        bins = np.minimum(np.abs(residual[within]) * PER_LEVEL, BINS).astype(np.intp)
        self._magnitudes += np.bincount(bins, minlength=BINS + 1)
        self._residual[k] = reduced(np.where(within, residual, np.float32(0)), self._fine)
        self._within[k] = reduced(within.astype(np.float32), self._fine)
        # The sign, as what was left of the noise changes that of no clear structure.
        surroundings = ndimage.uniform_filter(ndimage.uniform_filter(output, self._box), self._box)
        shape = smooth - surroundings
        shape[(np.abs(shape) < STANDS_OUT) | ~within] = 0
        sign = np.sign(shape)
        chance = sign * np.roll(residual, (SHIFT, SHIFT), (0, 1))
        maps = self._product, self._chance, self._signs, self._contrast
        for cells, values in zip(maps, (sign * residual, chance, np.abs(sign), np.abs(shape)), strict=True):
            cells[k] = reduced(values, self._coarse)

    def release(self) -> None:
        """Give the memory back that shows cells in files."""
        for cells in (self._residual, self._within, self._product, self._chance, self._signs, self._contrast):
            arrays.release(cells)

    def found(self) -> Structures:
        """The scores of all slices, and their maxima.

        Of blobs of each size an amplitude is a Gaussian mean less that of twice the width; a score is the amplitude
        over what is usual within the patient, so that it holds for noise of any spectrum. Where noise was left, a
        larger amplitude is usual by as much as the noise exceeds the residual. A structure that is everywhere makes
        itself usual: level, correlations and edges show that.
        """
        half = int(np.searchsorted(np.cumsum(self._magnitudes), self._magnitudes.sum() / 2))
        share = min(1.0, (half + 0.5) / PER_LEVEL / norm.ppf(0.75))
        maps = [self._blobs(size, share) for size in SIZES]
        maps.append(self._likeness(share))
        scores = sum(found.scores.size for found in maps)
        findings = [finding for found in maps for finding in found.maxima(threshold(scores))]
        greatest = [found.greatest() for found in maps]
        return Structures(max(greatest[:-1]), greatest[-1], scores, most_striking(findings, self.spacing))

    def _cells(self, factors: Sequence[int]) -> NDArray[Any]:
        sides = [-(-n // f) for n, f in zip(self.shape[1:], factors, strict=True)]
        return arrays.empty((self.shape[0], *sides), np.float32)

    def _blobs(self, size: float, share: float) -> _Map:
        factors = [max(f, n // f * f) for f, n in zip((1, *self._fine), cell(size, self.spacing), strict=True)]
        more = [n // f for f, n in zip((1, *self._fine), factors, strict=True)]
        residual, within = (coarser(cells, more) for cells in (self._residual, self._within))
        spacing = tuple(s * f for s, f in zip(self.spacing, factors, strict=True))
        narrow, wide = _widths(size, spacing), _widths(2 * size, spacing)
        amplitude = arrays.empty(residual.shape, np.float32)
        for part, around, inner in _parts(residual, wide[0]):
            difference = _mean(residual[around], narrow) - _mean(residual[around], wide)
            amplitude[part] = np.where(within[part] >= 0.5, difference[inner], 0)
            arrays.release(residual)
        white = math.sqrt(_gain(narrow) / math.prod(factors))  # the wide mean varies little beside
        every = slice(None, None, max(1, residual.size // AT_A_TIME))
        usual = _usual(amplitude[every][within[every] >= 0.5]) / share if share > 0 else 0.0

        def change(at: tuple[int, int, int]) -> float:
            # what was cut off at a border is not part of the mean
            return sum(s * _at(residual, at, w) / _at(within, at, w) for s, w in ((1, narrow), (-1, wide)))

        scale = max(usual, LEAST_SCALE * white)
        return _Map("structure", size, amplitude, scale, narrow, factors, self.shape, change)

    def _likeness(self, share: float) -> _Map:
        """Of the output's own structures: their sign times the residual, averaged over a window.

        It is compared with the standard deviation of that mean: of white noise by the weights, of other noise by the
        scores that the same signs give elsewhere in the residual.
        """
        factors = cell(WINDOW, self.spacing)
        product, chance, signs, contrast = (
            coarser(cells, (factors[0], 1, 1)) for cells in (self._product, self._chance, self._signs, self._contrast)
        )
        widths = _widths(WINDOW, tuple(s * f for s, f in zip(self.spacing, factors, strict=True)))
        gain = _gain(widths) / math.prod(factors)
        spread = np.sqrt(np.maximum(gain * _mean(signs, [w / math.sqrt(2) for w in widths]), 0))
        there = spread > gain

        def scores(of: Array) -> Array:
            found: Array = np.divide(_mean(of, widths), spread, out=np.zeros_like(spread), where=there)
            return found

        usual = _usual(scores(chance)[there]) / share if share > 0 else 0.0
        missing, present = _mean(product, widths), _mean(contrast, widths)

        def change(at: tuple[int, int, int]) -> float:
            return float(missing[at] / present[at])

        return _Map("contrast", WINDOW, scores(product), max(1.0, usual), widths, factors, self.shape, change)


@dataclass(frozen=True)
class _Map:
    """Scores times ``scale`` of cells of ``factors`` voxels each; change: of a finding at a cell."""

    kind: str
    size: float
    scores: Array
    scale: float
    widths: list[float]
    factors: Sequence[int]
    shape: tuple[int, int, int]
    change: Callable[[tuple[int, int, int]], float]

    def greatest(self) -> float:
        return max(float(np.abs(plane).max()) for plane in arrays.planes(self.scores)) / self.scale

    def maxima(self, least: float) -> Iterator[Finding]:
        """Local maxima of the magnitude of at least ``least``, one within two widths."""
        reach = [2 * math.ceil(2 * w) + 1 for w in self.widths]
        cells: list[tuple[int, int, int]] = []
        for part, around, inner in _parts(self.scores, self.widths[0]):
            magnitude = np.abs(self.scores[around])
            if magnitude[inner].max() >= least * self.scale:
                top = (magnitude >= least * self.scale) & (magnitude == ndimage.maximum_filter(magnitude, reach))
                cells += [(part.start + int(k), int(i), int(j)) for k, i, j in np.argwhere(top[inner])]
            arrays.release(self.scores)
        for at in sorted(cells, key=lambda c: -abs(float(self.scores[c])))[:MOST_STUDIED]:
            middle = [min(n - 1, c * f + f // 2) for c, f, n in zip(at, self.factors, self.shape, strict=True)]
            position = (middle[0], middle[1], middle[2])
            yield Finding(self.kind, position, float(self.scores[at]) / self.scale, self.change(at), self.size)


def most_striking(found: list[Finding], spacing: tuple[float, float, float]) -> list[Finding]:
    """The findings, the most striking first, without those inside a more striking one."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda f: -abs(f.score)):
        away = [np.linalg.norm(np.subtract(finding.position, k.position) * spacing) for k in kept]
        if all(d > max(finding.size, k.size) for d, k in zip(away, kept, strict=True)):
            kept.append(finding)
        if len(kept) == MOST_FINDINGS:
            break
    return kept


def threshold(scores: int) -> float:
    """The magnitude that any of so many scores of noise alone reaches in ``FALSE_ALARMS`` of scans.

    Bonferroni's bound over all of them, which holds however they depend on each other.
    """
    return float(norm.isf(FALSE_ALARMS / 2 / scores))


def cell(size: float, spacing: Sequence[float]) -> list[int]:
    """Voxels along each axis of a cell: at most one standard deviation of a blob of ``size`` mm."""
    return [max(1, int(size / WIDTH / s)) for s in spacing]


def reduced(image: Array, factors: Sequence[int]) -> Array:
    """Means over cells of so many pixels along each axis; beyond the borders are zeros."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            image = np.add.reduceat(image, np.arange(0, image.shape[axis], factor), axis) * np.float32(1 / factor)
    return image


def coarser(cells: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Means over so many cells along each axis, as ``reduced``; the cells themselves where all factors are 1."""
    if max(factors) == 1:
        return cells
    first, *others = factors
    sides = [-(-n // f) for n, f in zip(cells.shape, factors, strict=True)]
    made = arrays.empty(sides, np.float32)
    for k in range(sides[0]):
        made[k] = reduced(cells[k * first : (k + 1) * first].sum(0) * np.float32(1 / first), others)
        arrays.release(cells)
    return made


def _parts(cells: NDArray[Any], width: float) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of cells, a part at a time: the part, the part with what its Gaussian means reach, the part within that"""
    step, reach, count = max(1, AT_A_TIME // cells[0].size), math.ceil(4 * width) + 1, len(cells)
    for start in range(0, count, step):
        stop, first = min(start + step, count), max(0, start - reach)
        yield slice(start, stop), slice(first, min(count, stop + reach)), slice(start - first, stop - first)


def _usual(values: Array) -> float:
    """Standard deviation of what most of the values are, by their median magnitude; 0 of none."""
    return float(np.median(np.abs(values)) / norm.ppf(0.75)) if values.size else 0.0


def _widths(size: float, spacing: Sequence[float]) -> list[float]:
    """Standard deviations along slices, rows and columns in cells; 0 along an axis that is too coarse."""
    cells = [size / WIDTH / s for s in spacing]
    return [c if c >= 0.5 else 0.0 for c in cells]


def _mean(array: Array, widths: Sequence[float]) -> Array:
    """Gaussian mean. Beyond the borders are zeros, so that noise varies there no more than inside."""
    smooth: Array = ndimage.gaussian_filter(array, widths, mode="constant")
    return smooth


def _at(array: NDArray[Any], position: tuple[int, int, int], widths: Sequence[float]) -> float:
    """The Gaussian mean at one position, zeros beyond the borders."""
    ranges = [
        np.arange(max(0, m - math.ceil(5 * w)), min(n, m + math.ceil(5 * w) + 1))
        for n, m, w in zip(array.shape, position, widths, strict=True)
    ]
    near = array[tuple(slice(int(r[0]), int(r[-1]) + 1) for r in ranges)]
    for indices, middle, width in zip(ranges, position, widths, strict=True):
        weights = np.exp(-0.5 * ((indices - middle) / width) ** 2) if width else np.ones(1)
        near = np.tensordot(weights / max(1.0, math.sqrt(2 * math.pi) * width), near, 1)
    return float(near)


def _gain(widths: Sequence[float]) -> float:
    """Variance of a Gaussian mean of white noise of variance 1."""
    return math.prod(min(1.0, 1 / (2 * math.sqrt(math.pi) * w)) if w else 1.0 for w in widths)
