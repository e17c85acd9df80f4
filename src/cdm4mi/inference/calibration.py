"""Calibration: from the spread of a few samples to a standard deviation whose intervals cover what they claim.

Fitted on patients that the model was not trained on. With s the samples' standard deviation, smoothed over a few pixels
(a handful of samples says little of one pixel), and the noise level l of the scan, the calibrated standard deviation is
scale sqrt(s^2 + (floor l)^2); the interval is the mean of the samples +- 1.645 of it. ``scale`` is the quantile of
|error| / sqrt(s^2 + (floor l)^2) that makes the interval cover 90 % of the foreground (split conformal prediction, Vovk
et al. 2005; normalised scores as Lei et al. 2018, section 5.2); smoothing and floor are those of least width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.models.about import Calibration

INTERVAL = 0.9
HALF_WIDTH = 1.6448536
"""Standard deviations from the middle of a 90 % interval of a Gaussian to its ends."""

SMOOTHING = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)
FLOORS = (0.02, 0.05, 0.1, 0.2, 0.4)
SETTINGS = (
    "solver",
    "steps",
    "eta",
    "spacing",
    "times",
    "start_from",
    "start_level",
    "clip",
    "dynamic_threshold",
    "samples",
)
"""What of the sampling settings decides the spread of the samples."""


def calibrated(calibration: Calibration, spread: NDArray[Any], level: float | NDArray[Any]) -> NDArray[Any]:
    """The calibrated standard deviation of slices (N, rows, columns), in the units of spread and level.

    level: of all slices, or of each (N,).
    """
    floored = _floored(spread, np.broadcast_to(level, len(spread)), calibration.smoothing, calibration.floor)
    return (calibration.scale * floored).astype(np.float32)


def fits(calibration: Calibration, sampling: SamplingConfig) -> bool:
    """Whether samples are drawn as those that it was fitted on."""
    return settings_of(sampling) == calibration.settings


def settings_of(sampling: SamplingConfig) -> dict[str, Any]:
    """The settings that decide the spread of the samples."""
    return {name: value for name, value in sampling.model_dump(mode="json").items() if name in SETTINGS}


def fit_calibration(
    error: NDArray[Any],
    spread: NDArray[Any],
    levels: Sequence[float],
    inside: NDArray[Any],
    groups: Sequence[str],
    sampling: SamplingConfig,
) -> Calibration:
    """Fit on images that the model was not trained on.

    error, spread: mean of the samples minus truth, and their standard deviation, (N, rows, columns) on [-1, 1]; levels:
    the noise level of each image; inside: the foreground, bool; groups: whose image it is. ``coverage_after`` is
    measured on each group by what the others give (on the odd images by the even ones where there is one group only).
    """
    sigma = np.asarray(levels, np.float64)
    names = np.array(groups)
    if len(set(groups)) == 1:
        names = np.arange(len(error)) % 2
    before = float((np.abs(error) <= HALF_WIDTH * spread)[inside].mean())
    hits = []
    for name in np.unique(names):
        rest = names != name
        smoothing, floor, scale = _fit(error[rest], spread[rest], sigma[rest], inside[rest])
        width = HALF_WIDTH * scale * _floored(spread[~rest], sigma[~rest], smoothing, floor)
        hits.append((np.abs(error[~rest]) <= width)[inside[~rest]])
    smoothing, floor, scale = _fit(error, spread, sigma, inside)
    after = float(np.concatenate(hits).mean())
    return Calibration(
        smoothing=smoothing,
        floor=floor,
        scale=scale,
        settings=settings_of(sampling),
        coverage_before=before,
        coverage_after=after,
    )


def _fit(
    error: NDArray[Any], spread: NDArray[Any], levels: NDArray[Any], inside: NDArray[Any]
) -> tuple[float, float, float]:
    """(smoothing, floor, scale) of the narrowest intervals that cover their share of these images."""
    best, least = (0.0, FLOORS[0], 1.0), np.inf
    for smoothing, floor in product(SMOOTHING, FLOORS):
        predicted = _floored(spread, levels, smoothing, floor)[inside]
        scale = float(np.quantile(np.abs(error[inside]) / predicted, INTERVAL)) / HALF_WIDTH
        width = scale * float(predicted.mean())
        if width < least:
            best, least = (smoothing, floor, scale), width
    return best


def _floored(spread: NDArray[Any], levels: NDArray[Any], smoothing: float, floor: float) -> NDArray[Any]:
    variance = spread.astype(np.float64) ** 2
    if smoothing > 0:
        variance = gaussian_filter(variance, (0, smoothing, smoothing))
    return np.sqrt(variance + (floor * levels[:, None, None]) ** 2)
