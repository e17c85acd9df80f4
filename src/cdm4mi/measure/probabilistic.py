"""Scores of a stated uncertainty: coverage and width of intervals, CRPS of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cdm4mi.errors import UserError


def gaussian_interval(mean: NDArray[Any], sd: NDArray[Any], level: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ends (low, high) of the central interval of a Gaussian that has the probability ``level``, pixel by pixel."""
    _check_level(level)
    half = stats.norm.ppf((1 + level) / 2) * np.asarray(sd, np.float64)
    return mean - half, mean + half


def sample_interval(samples: NDArray[Any], level: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ends (low, high) of the central interval of probability ``level`` for each pixel, from samples (K, ...).

    The k-th of K ordered samples is the quantile k / (K + 1): a true value from the same distribution lies below it
    with that probability, whatever the distribution, so the interval's coverage is ``level``. Numpy's default
    quantiles are too narrow for few samples. Raises UserError where K samples are too few: from the least to the
    greatest the level is (K - 1) / (K + 1).
    """
    _check_level(level)
    count = len(samples)
    if level > (count - 1) / (count + 1) + 1e-12:
        needed = int(np.ceil((1 + level) / (1 - level) - 1e-9))
        raise UserError(f"interval of {level:g}: found {count} samples, expected at least {needed}")
    low, high = np.quantile(np.asarray(samples, np.float64), ((1 - level) / 2, (1 + level) / 2), 0, method="weibull")
    return low, high


def coverage(low: NDArray[Any], high: NDArray[Any], truth: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Share of the pixels whose true value lies in the interval, ends included; best where it is the stated level."""
    inside = (low <= truth) & (truth <= high)
    return float(np.mean(inside if mask is None else inside[mask]))


def interval_width(low: NDArray[Any], high: NDArray[Any], mask: NDArray[Any] | None = None) -> float:
    """Mean width of the intervals, in image units; at equal coverage, narrower is better."""
    width = np.asarray(high, np.float64) - low
    return float(np.mean(width if mask is None else width[mask]))


def crps_gaussian(mean: NDArray[Any], sd: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """CRPS of a Gaussian forecast, pixel by pixel (Gneiting and Raftery 2007, section 4.2), in image units."""
    z = (np.asarray(truth, np.float64) - mean) / sd
    score: NDArray[np.float64] = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    return score


def crps_samples(samples: NDArray[Any], truth: NDArray[Any], fair: bool = True) -> NDArray[np.float64]:
    """CRPS of K samples (K, ...), pixel by pixel: E|X - y| - E|X - X'| / 2, in image units; less is better.

    For one sample it is the absolute error. ``fair`` leaves a sample's pair with itself out of the second mean (Ferro
    2014), so that its expectation does not depend on K and runs with other numbers of samples compare; else the score
    is that of the empirical distribution of the K samples.
    """
    ordered = np.sort(np.asarray(samples, np.float64), axis=0)
    count = len(ordered)
    if count < 1 or ordered.shape[1:] != np.shape(truth):
        raise UserError(f"samples have shape {np.shape(samples)}, expected (K, {', '.join(map(str, np.shape(truth)))})")
    error: NDArray[np.float64] = np.abs(ordered - truth).mean(axis=0)
    if count == 1:
        return error
    # the sum of |x_i - x_j| over i < j is that of (2 k - K - 1) x_(k) over the ordered samples, k = 1 to K
    weights = 2 * np.arange(1, count + 1) - count - 1
    pairs: NDArray[np.float64] = np.tensordot(weights, ordered, axes=1)
    return error - pairs / (count * (count - 1) if fair else count**2)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"interval level is {level:g}, expected more than 0 and less than 1")
