"""The Hotelling observer of channel outputs: d' and the area under the ROC curve, each with a confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError

Array = NDArray[np.float64]
FOLDS, PARTITIONS = 10, 5
RESAMPLES = 1000
RIDGE = 1e-6
"""Share of the channels' mean variance that is added to each: a restored image may have none in some channel."""
ROUNDING = 1e-12
"""Variance that is none: outputs are in units of about a per cent of the lesions' contrast, or larger."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Detectability:
    """How well an observer tells images with a lesion from images without; intervals hold 95 %.

    d: the means' difference over the root mean square of both standard deviations, of the observer's scores. auc: share
    of pairs of an image with and one without in which the former scores higher; of Gaussian scores Phi(d / sqrt 2).
    """

    d: float
    d_interval: Interval
    auc: float
    auc_interval: Interval


def hotelling_observer(absent: Array, present: Array, paired: bool = False, seed: int = 0) -> Detectability:
    """Detectability for the Hotelling template of channel outputs (n, channels) without and with the lesion.

    An image is scored by the template w = K^-1 (mean difference), K the mean of both covariances, of the images in the
    nine other tenths, and compared with the images of its own tenth alone; that for several partitions into tenths.
    Scored by a template that has seen them, few images would seem far too different. What is found is a little under
    the observer's own d', by about half of channels over images.

    paired: row i of both has the same noise, so the two are never compared with each other, and are drawn together. The
    intervals are percentiles of 1000 bootstrap samples of the images, for templates as they are.
    Raises UserError for less than four images of each.
    """
    absent, present = np.asarray(absent, np.float64), np.asarray(present, np.float64)
    if min(len(absent), len(present)) < 4 or (paired and len(absent) != len(present)):
        found = f"{len(absent)} without and {len(present)} with"
        raise UserError(f"observer: found images {found} a lesion, expected at least 4 of each, of pairs as many")
    random = np.random.default_rng(seed)

    def drawn(count: int) -> Array:
        """How often each image is in each bootstrap sample; the first holds each once."""
        counts = random.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
        return np.vstack([np.ones(count), counts])

    without = drawn(len(absent))
    with_ = without if paired else drawn(len(present))
    shape = len(present), len(absent)
    pairs, gaps, higher = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    variance = np.zeros(RESAMPLES + 1)
    for _ in range(PARTITIONS):
        folds = _folds(len(absent), len(present), paired, random)
        scores = _scores(absent, present, folds)
        gap = scores[1][:, None] - scores[0]
        compared = folds[1][:, None] == folds[0]
        if paired:
            np.fill_diagonal(compared, False)
        pairs += compared
        gaps += compared * gap
        higher += compared * (np.sign(gap) + 1) / 2
        variance += (_variance(without, scores[0]) + _variance(with_, scores[1])) / (2 * PARTITIONS)
    weights, total, wins = (np.sum((with_ @ values) * without, 1) for values in (pairs, gaps, higher))
    weights = np.maximum(weights, 1e-12)
    aucs, ds = wins / weights, total / weights / np.sqrt(np.maximum(variance, ROUNDING))
    return Detectability(float(ds[0]), _interval(ds[1:]), float(aucs[0]), _interval(aucs[1:]))


def _folds(absent: int, present: int, paired: bool, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """The fold of each image without and with the lesion; at least two of each are in a fold."""
    folds = max(2, min(FOLDS, absent // 2, present // 2))
    first = random.permutation(absent) % folds
    return [first, first if paired else random.permutation(present) % folds]


def _scores(absent: Array, present: Array, folds: list[NDArray[np.int64]]) -> list[Array]:
    """The score of each image by the template of the other folds."""
    scores = [np.empty(len(absent)), np.empty(len(present))]
    for fold in range(int(folds[0].max()) + 1):
        template = hotelling_template(absent[folds[0] != fold], present[folds[1] != fold])
        for score, values, its in zip(scores, (absent, present), folds, strict=True):
            score[its == fold] = values[its == fold] @ template
    return scores


def hotelling_template(absent: Array, present: Array) -> Array:
    """w = K^-1 (mean difference), K the mean of both covariances, scaled to scores of unit variance."""
    covariance = (np.cov(absent, rowvar=False) + np.cov(present, rowvar=False)) / 2
    covariance = np.atleast_2d(covariance)
    covariance += (RIDGE * np.trace(covariance) / len(covariance) + ROUNDING) * np.eye(len(covariance))
    w = np.linalg.solve(covariance, present.mean(0) - absent.mean(0))
    scaled: Array = w / max(float(np.sqrt(w @ covariance @ w)), ROUNDING)
    return scaled


def _variance(counts: Array, score: Array) -> Array:
    """Unbiased variance of scores of which each is there ``counts`` (samples, n) times."""
    number = counts.sum(1)
    mean = counts @ score / number
    variance: Array = np.maximum(counts @ score**2 / number - mean**2, 0) * number / (number - 1)
    return variance


def _interval(values: Array) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
