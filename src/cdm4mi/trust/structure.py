"""Structure in a residual: standard scores of blobs, and of likeness to what the output shows; their local maxima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import norm

SIZES = 4.0, 8.0, 16.0
"""Millimetres, full width at half maximum of the blobs that are looked for."""
WINDOW = 12.0
"""Millimetres, full width at half maximum of the surroundings in which contrast is compared."""
FALSE_ALARMS = 0.01
"""Scans of noise alone that have a finding."""
STANDS_OUT = 2.0
"""Noise levels from which a structure of the output is one, and not what was left of the noise."""
LEAST_SCALE = 0.05
"""Share of the scores of white noise below which what varies is rounding."""
SHIFT = 24
"""Pixels by which the output is shifted against the residual, to see what scores chance gives."""
MOST_FINDINGS = 50
WIDTH = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """A place with structure in the residual.

    kind: "structure" (something was removed or added) or "contrast" (a structure of the output is weaker, or stronger,
    than that of the input). position: (slice, row, column). score: standard score, noise alone has 0 +- 1. change: for
    "structure" the mean residual over the blob against its surroundings, in the scan's units, positive where something
    bright was removed; for "contrast" the contrast that is missing, over what the output has. size: millimetres, full
    width at half maximum of the blob, or of the surroundings that were compared.
    """

    kind: str
    position: tuple[int, int, int]
    score: float
    change: float
    size: float


def local_scores(
    residual: Array, spacing: tuple[float, float, float], within: NDArray[np.bool_]
) -> tuple[Array, list[Finding]]:
    """Of a residual in noise levels, the scores of blobs of all sizes (the greatest at each pixel), and their maxima.

    A blob's amplitude is a Gaussian mean less that of twice the width; a score is the amplitude over what is usual
    ``within`` the patient, so that it holds for noise of any spectrum. Where noise was left, a larger amplitude is
    usual by as much as the noise exceeds the residual. A structure that is everywhere makes itself usual: level,
    correlations and edges show that.
    """
    share = min(1.0, _usual(residual[within]))
    residual = np.where(within, residual, 0)
    best = np.zeros(residual.shape, np.float32)
    found = []
    for size in SIZES:
        narrow, wide = _widths(size, spacing), _widths(2 * size, spacing)
        amplitude = _mean(residual, narrow) - _mean(residual, wide)
        white = math.sqrt(_gain(narrow))  # the wide mean varies little beside
        usual = _usual(amplitude[within]) / share if share > 0 else 0.0
        scores = np.where(within, amplitude / max(usual, LEAST_SCALE * white), 0)
        for position in _maxima(np.abs(scores), narrow, threshold(residual.size)):
            # what was cut off at a border is not part of the mean
            change = sum(
                s * _at(residual, position, w) / _at(within, position, w) for s, w in ((1, narrow), (-1, wide))
            )
            found.append(Finding("structure", position, float(scores[position]), change, size))
        best = np.where(np.abs(scores) > np.abs(best), scores, best)
    return best, found


def contrast_scores(
    residual: Array, output: Array, spacing: tuple[float, float, float], within: NDArray[np.bool_]
) -> tuple[Array, list[Finding]]:
    """Of a residual and an output in noise levels, the scores of their likeness around each pixel, and its maxima.

    Where the output, less its surroundings, stands out of the noise, its sign times the residual is averaged over a
    window (the sign, as what was left of the noise changes that of no clear structure), and compared with the standard
    deviation of that mean: of white noise by the weights, of other noise by the scores that the same signs give
    elsewhere in the residual.
    """
    widths = _widths(WINDOW, spacing)
    shape = _mean(output, (0.0, 1.0, 1.0), "nearest") - _mean(output, widths, "nearest")
    shape[(np.abs(shape) < STANDS_OUT) | ~within] = 0
    sign = np.sign(shape)
    spread = np.sqrt(_gain(widths) * _mean(np.abs(sign), [w / math.sqrt(2) for w in widths]))
    there = (spread > _gain(widths)) & within
    share = min(1.0, _usual(residual[within]))

    def scores(signs: Array, by: Array, where: NDArray[np.bool_]) -> Array:
        product = _mean(residual * signs, widths)
        return np.divide(product, by, out=np.zeros_like(product), where=where)

    shifted = [np.roll(a, (SHIFT, SHIFT), (1, 2)) for a in (sign, spread, there)]
    chance = scores(*shifted)[shifted[2]]
    usual = _usual(chance) / share if share > 0 else 0.0
    found = scores(sign, spread, there) / max(1.0, usual)
    missing, contrast = _mean(residual * sign, widths), _mean(np.abs(shape), widths)
    maxima = _maxima(np.abs(found), widths, threshold(residual.size))
    return found, [Finding("contrast", p, float(found[p]), float(missing[p] / contrast[p]), WINDOW) for p in maxima]


def most_striking(found: list[Finding], spacing: tuple[float, float, float], sigma: Array) -> list[Finding]:
    """The findings, the most striking first, without those inside a more striking one.

    sigma: noise level at each pixel, which takes changes to the scan's units.
    """
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda f: -abs(f.score)):
        away = [np.linalg.norm(np.subtract(finding.position, k.position) * spacing) for k in kept]
        if all(d > max(finding.size, k.size) for d, k in zip(away, kept, strict=True)):
            kept.append(finding)
        if len(kept) == MOST_FINDINGS:
            break
    return [replace(f, change=f.change * float(sigma[f.position])) if f.kind == "structure" else f for f in kept]


def _usual(values: Array) -> float:
    """Standard deviation of what most of the values are, by their median magnitude; 0 of none."""
    return float(np.median(np.abs(values)) / norm.ppf(0.75)) if values.size else 0.0


def _widths(size: float, spacing: tuple[float, float, float]) -> list[float]:
    """Standard deviations along slices, rows and columns in pixels; 0 along an axis that is too coarse."""
    pixels = [size / WIDTH / s for s in spacing]
    return [p if p >= 0.5 else 0.0 for p in pixels]


def _mean(array: Array, widths: Sequence[float], beyond: str = "constant") -> Array:
    """Gaussian mean. Beyond the borders are zeros, so that noise varies there no more than inside, or ("nearest") more
    of the outermost pixels."""
    smooth: Array = ndimage.gaussian_filter(array, widths, mode=beyond)
    return smooth


def _at(array: NDArray[Any], position: tuple[int, int, int], widths: Sequence[float]) -> float:
    """The Gaussian mean at one position, zeros beyond the borders."""
    for length, middle, width in zip(array.shape, position, widths, strict=True):
        distance = np.arange(length) - middle
        weights = np.exp(-0.5 * (distance / width) ** 2) if width else (distance == 0).astype(float)
        array = np.tensordot(weights / max(1.0, math.sqrt(2 * math.pi) * width), array, 1)
    return float(array)


def _gain(widths: list[float]) -> float:
    """Variance of a Gaussian mean of white noise of variance 1."""
    return math.prod(min(1.0, 1 / (2 * math.sqrt(math.pi) * w)) if w else 1.0 for w in widths)


def threshold(pixels: int) -> float:
    """The score that noise alone reaches anywhere, in blobs of any size or in contrast, in ``FALSE_ALARMS`` of scans.

    Bonferroni's bound over all of them, which holds however they depend on each other.
    """
    return float(norm.isf(FALSE_ALARMS / 2 / (pixels * (len(SIZES) + 1))))


def _maxima(scores: Array, widths: list[float], least: float) -> list[tuple[int, int, int]]:
    """Positions of local maxima of at least ``least``, one within two widths."""
    size = [2 * math.ceil(2 * w) + 1 for w in widths]
    at = np.argwhere((scores >= least) & (scores == ndimage.maximum_filter(scores, size)))
    return [(int(k), int(i), int(j)) for k, i, j in at]
