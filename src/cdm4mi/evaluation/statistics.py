"""What a mean over few patients is worth: bootstrap intervals, paired tests, and Holm's correction for many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainSerializer
from scipy import stats

from cdm4mi.errors import UserError


def _as_json(value: float) -> Any:
    return value if np.isfinite(value) else None if np.isnan(value) else str(value)


Number = Annotated[
    float, BeforeValidator(lambda v: float("nan" if v is None else v)), PlainSerializer(_as_json, when_used="json")
]
"""In JSON, which has neither, nan is null and an infinity (the PSNR of equal images) is the text "inf"."""
NONE = float("nan")
RESAMPLES = 10_000
LEAST_PAIRS = 6
"""With fewer pairs even the same sign in all of them is p > 0.05 (two-sided)."""


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13).

    Give one value a patient: slices of one patient are alike, and an interval over slices is far too narrow. For less
    than about ten patients it is somewhat too narrow too. (nan, nan) for less than two values, or where one is not
    finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return NONE, NONE
    random = np.random.default_rng(seed)
    settings = {"confidence_level": level, "n_resamples": resamples, "method": "percentile", "random_state": random}
    interval = stats.bootstrap((x,), np.mean, **settings).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): the i-th least of m times m - i + 1, never below the one before, at most 1.

    A test whose adjusted value is at most alpha is one that Holm rejects, with all false rejections together held to
    alpha.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on pairs; 1 where all pairs are equal, nan where one is not finite."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not len(difference) or not np.isfinite(difference).all():
        return NONE
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


@dataclass(frozen=True)
class PairedTest:
    """One comparison of two methods by one metric over the same patients; ``adjusted`` counts all tests made."""

    method: str
    other: str
    metric: str
    region: str
    patients: int
    difference: Number
    p: Number
    adjusted: Number


def paired_tests(
    scores: Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]], method: str, metrics: Sequence[str]
) -> list[PairedTest]:
    """``method`` against every other one, by patient, for each metric and region, with Holm's correction over all.

    scores: by (method, region), then by patient, then by metric. Patients that lack either figure are left out.
    """
    found: list[tuple[str, str, str, int, float, float]] = []
    for (other, region), theirs in scores.items():
        if other == method or (method, region) not in scores:
            continue
        ours = scores[method, region]
        for metric in metrics:
            pairs = [
                (ours[patient][metric], theirs[patient][metric])
                for patient in ours
                if patient in theirs and metric in ours[patient] and metric in theirs[patient]
            ]
            pairs = [pair for pair in pairs if np.isfinite(pair).all()]
            if len(pairs) >= LEAST_PAIRS:
                a, b = np.transpose(pairs)
                found.append((other, metric, region, len(pairs), float((a - b).mean()), wilcoxon(a, b)))
    adjusted = holm([p for *_, p in found])
    return [
        PairedTest(method, other, metric, region, count, difference, p, corrected)
        for (other, metric, region, count, difference, p), corrected in zip(found, adjusted, strict=True)
    ]


@dataclass(frozen=True)
class Mean:
    """A mean over patients with the ends of its 95 % bootstrap interval (nan for one patient)."""

    value: Number = NONE
    low: Number = NONE
    high: Number = NONE
    patients: int = 0


def mean_over_patients(values: Sequence[float], seed: int = 0) -> Mean:
    """The mean of one value a patient; those that are nan (a tissue that a patient does not show) are left out."""
    held = [value for value in values if not np.isnan(value)]
    if not values:
        raise UserError("no patient to average, expected at least one")
    if not held:
        return Mean()
    return Mean(float(np.mean(held)), *bootstrap_interval(held, seed=seed), len(held))
