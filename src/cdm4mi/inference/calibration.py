"""Calibration: from the spread of a few samples to a standard deviation whose intervals cover what they claim.

Fitted on patients that the model was not trained on. With s the samples' standard deviation, smoothed over a few pixels
(a handful of samples says little of one pixel), and the noise level l of the scan, the calibrated standard deviation is
scale sqrt(s^2 + (floor l)^2); the interval is the mean of the samples +- 1.645 of it. ``scale`` is the quantile of
|error| / sqrt(s^2 + (floor l)^2) that makes the interval cover 90 % of the foreground (split conformal prediction, Vovk
et al. 2005; normalised scores as Lei et al. 2018, section 5.2), for each kind of noise by itself; smoothing and floor
are those of least width over all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.models.about import Calibration, KindCalibration

INTERVAL = 0.9
HALF_WIDTH = 1.6448536
"""Standard deviations from the middle of a 90 % interval of a Gaussian to its ends."""

SMOOTHING = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)
FLOORS = (0.02, 0.05, 0.1, 0.2, 0.4)
CORRELATED = 0.15
"""Correlation of neighbouring pixels from which noise is not called white."""
LEAST_IMAGES = 4
"""A kind of noise seen on fewer images is not calibrated."""
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


def noise_kind(modality: str | None, texture: Sequence[float]) -> str:
    """What a calibration is for: white or correlated noise, by modality, magnitudes of MR by themselves.

    texture: of the noise (``measure.noise_level``).
    """
    rows, columns, magnitude = texture
    colour = "correlated" if (rows + columns) / 2 > CORRELATED else "white"
    image = f"{modality or 'unknown'} {'magnitudes' if magnitude > 0.5 else 'images'}"
    return f"{colour} noise in {image}"


def calibrated(calibration: Calibration, spread: NDArray[Any], level: float | NDArray[Any], kind: str) -> NDArray[Any]:
    """The calibrated standard deviation of slices (N, rows, columns), in the units of spread and level.

    level: of all slices, or of each (N,); kind: of their noise, one of ``calibration.kinds``.
    """
    floored = _floored(spread, np.broadcast_to(level, len(spread)), calibration.smoothing, calibration.floor)
    return (calibration.kinds[kind].scale * floored).astype(np.float32)


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
    kinds: Sequence[str],
    sampling: SamplingConfig,
    trained_on: Collection[str] = (),
) -> Calibration:
    """Fit on images that the model was not trained on.

    error, spread: mean of the samples minus truth, and their standard deviation, (N, rows, columns) on [-1, 1]; levels:
    the noise level of each image; inside: the foreground, bool; groups: whose image it is; kinds: of its noise;
    trained_on: groups of whom the model saw other slices.
    The coverages after are measured on each group by what the others give (on the odd images by the even ones where
    there is one group only).
    """
    sigma = np.asarray(levels, np.float64)
    names = np.array(groups)
    if len(set(groups)) == 1:
        names = np.arange(len(error)) % 2
    before = float((np.abs(error) <= HALF_WIDTH * spread)[inside].mean())
    which = np.array(kinds)
    counted = [str(kind) for kind in np.unique(which) if (which == kind).sum() >= LEAST_IMAGES]
    hits: dict[str, list[NDArray[Any]]] = {kind: [] for kind in counted}
    for name in np.unique(names):
        rest = names != name
        smoothing, floor, _ = _fit(error[rest], spread[rest], sigma[rest], inside[rest])
        predicted = _floored(spread, sigma, smoothing, floor)
        for kind in counted:
            fitted, judged = rest & (which == kind), ~rest & (which == kind)
            if fitted.any() and judged.any():
                width = HALF_WIDTH * _scale(error[fitted], predicted[fitted], inside[fitted]) * predicted[judged]
                hits[kind].append((np.abs(error[judged]) <= width)[inside[judged]])
    smoothing, floor, scale = _fit(error, spread, sigma, inside)
    predicted = _floored(spread, sigma, smoothing, floor)
    found = {}
    for kind in counted:
        if hits[kind]:
            at, coverage = which == kind, float(np.concatenate(hits[kind]).mean())
            found[kind] = KindCalibration(
                scale=_scale(error[at], predicted[at], inside[at]),
                coverage=coverage,
                measured_on="unread slices of training patients"
                if {group for group, here in zip(groups, at, strict=True) if here} & set(trained_on)
                else "validation patients",
            )
    every = [covered for kind in found for covered in hits[kind]]
    return Calibration(
        smoothing=smoothing,
        floor=floor,
        scale=scale,
        settings=settings_of(sampling),
        coverage_before=before,
        coverage_after=float(np.concatenate(every).mean()) if every else before,
        kinds=found,
    )


def _fit(
    error: NDArray[Any], spread: NDArray[Any], levels: NDArray[Any], inside: NDArray[Any]
) -> tuple[float, float, float]:
    """(smoothing, floor, scale) of the narrowest intervals that cover their share of these images."""
    best, least = (0.0, FLOORS[0], 1.0), np.inf
    for smoothing, floor in product(SMOOTHING, FLOORS):
        predicted = _floored(spread, levels, smoothing, floor)
        scale = _scale(error, predicted, inside)
        width = scale * float(predicted[inside].mean())
        if width < least:
            best, least = (smoothing, floor, scale), width
    return best


def _scale(error: NDArray[Any], predicted: NDArray[Any], inside: NDArray[Any]) -> float:
    """What the predicted standard deviations are multiplied by for their 90 % intervals to cover 90 %."""
    return float(np.quantile(np.abs(error[inside]) / predicted[inside], INTERVAL)) / HALF_WIDTH


def _floored(spread: NDArray[Any], levels: NDArray[Any], smoothing: float, floor: float) -> NDArray[Any]:
    variance = spread.astype(np.float64) ** 2
    if smoothing > 0:
        variance = gaussian_filter(variance, (0, smoothing, smoothing))
    return np.sqrt(variance + (floor * levels[:, None, None]) ** 2)
