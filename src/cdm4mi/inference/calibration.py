"""Calibration: from the spread of a few samples to a standard deviation whose intervals cover what they claim.

Fitted on patients that the model was not trained on. With s the samples' standard deviation, smoothed over a few pixels
(a handful of samples says little of one pixel), and the noise level l of the scan, the calibrated standard deviation is
scale d with d = sqrt(s^2 + (floor l)^2) (l / 0.1)^-exponent: samples are surer of themselves than they should be, and
more so in weak noise. The interval is the mean of the samples +- 1.645 of it. ``scale`` is the quantile of |error| / d
that makes the interval cover 90 % of the foreground (split conformal prediction, Vovk et al. 2005; normalised scores as
Lei et al. 2018, section 5.2), for each kind of noise by itself; smoothing, floor and exponent are those of least width
over all, the geometric mean, in which weak noise counts as much as strong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.inference.conformal import LEAST_VOXELS, scan_bound, scan_score, scans_needed
from cdm4mi.models.about import Calibration, KindCalibration, ScanBound

INTERVAL = 0.9
ALPHA = 0.1
"""The share of scans that may have fewer than 90 % of their voxels within a scan bound."""
HALF_WIDTH = 1.6448536
"""Standard deviations from the middle of a 90 % interval of a Gaussian to its ends."""

SMOOTHING = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)
FLOORS = (0.02, 0.05, 0.1, 0.2, 0.4)
EXPONENTS = (0.0, 0.05, 0.1, 0.15, 0.2)
USUAL_LEVEL = 0.1
"""On [-1, 1]: the noise level at which the exponent says nothing."""
CORRELATED = 0.15
"""Correlation of neighbouring pixels from which noise is not called white."""
UNKNOWN = "unknown"
"""The modality of images of which nothing says it."""
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
    image = f"{modality or UNKNOWN} {'magnitudes' if magnitude > 0.5 else 'images'}"
    return f"{colour} noise in {image}"


def calibrated(calibration: Calibration, spread: NDArray[Any], level: float | NDArray[Any], kind: str) -> NDArray[Any]:
    """The calibrated standard deviation of slices (N, rows, columns), on [-1, 1] as spread and level are.

    level: of all slices, or of each (N,); kind: of their noise, one of ``calibration.kinds``.
    """
    levels = np.broadcast_to(level, len(spread))
    predicted = _predicted(spread, levels, _Shape(calibration.smoothing, calibration.floor, calibration.exponent))
    return (calibration.kinds[kind].scale * predicted).astype(np.float32)


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
    modalities: Sequence[str] = (),
    regions: Sequence[Mapping[str, NDArray[Any]]] = (),
) -> Calibration:
    """Fit on images that the model was not trained on.

    error, spread: mean of the samples minus truth, and their standard deviation, (N, rows, columns) on [-1, 1]; levels:
    the noise level of each image; inside: the foreground, bool; groups: whose image it is; kinds: of its noise;
    trained_on: groups of whom the model saw other slices; modalities, regions (``conformal.regions_of``): of each
    image, for bounds that hold for whole scans, one for each modality; without them there are none.
    The coverages after, and the scores of scans, are those of each group by what the others give (of the odd images by
    the even ones where there is one group only).
    """
    sigma = np.asarray(levels, np.float64)
    names = np.array(groups)
    if len(set(groups)) == 1:
        names = np.arange(len(error)) % 2
    before = float((np.abs(error) <= HALF_WIDTH * spread)[inside].mean())
    which = np.array(kinds)
    counted = [str(kind) for kind in np.unique(which) if (which == kind).sum() >= LEAST_IMAGES]
    ratio = np.empty(error.shape)  # |error| over the standard deviation that is calibrated on the other groups
    judged = np.zeros(len(error), bool)
    for name in np.unique(names):
        rest = names != name
        predicted = _predicted(spread, sigma, _fit(error[rest], spread[rest], sigma[rest], inside[rest], which[rest]))
        for kind in counted:
            fitted, left_out = rest & (which == kind), ~rest & (which == kind)
            if fitted.any():
                deviation = _scale(error[fitted], predicted[fitted], inside[fitted]) * predicted[left_out]
                ratio[left_out], judged[left_out] = np.abs(error[left_out]) / deviation, True
    shape = _fit(error, spread, sigma, inside, which)
    predicted = _predicted(spread, sigma, shape)
    found = {}
    for kind in counted:
        at = which == kind
        if (at & judged).any():
            found[kind] = KindCalibration(
                scale=_scale(error[at], predicted[at], inside[at]),
                coverage=_coverage(ratio[at & judged], inside[at & judged]),
                measured_on="unread slices of training patients"
                if {group for group, here in zip(groups, at, strict=True) if here} & set(trained_on)
                else "validation patients",
            )
    bounds = {}
    for modality in sorted(set(modalities)):
        at = judged & (np.array(modalities) == modality) & ~np.isin(groups, list(trained_on))
        bounds[modality] = _scan_bound(at, ratio, inside, np.array(groups), which, regions)
    return Calibration(
        smoothing=shape.smoothing,
        floor=shape.floor,
        exponent=shape.exponent,
        settings=settings_of(sampling),
        coverage_before=before,
        coverage_after=_coverage(ratio[judged], inside[judged]) if judged.any() else before,
        kinds=found,
        scan_bounds=bounds,
    )


def _coverage(ratio: NDArray[Any], inside: NDArray[Any]) -> float:
    """The share of the foreground within the half width of the interval."""
    return float((ratio <= HALF_WIDTH)[inside].mean())


def _scan_bound(
    at: NDArray[Any],
    ratio: NDArray[Any],
    inside: NDArray[Any],
    groups: NDArray[Any],
    kinds: NDArray[Any],
    regions: Sequence[Mapping[str, NDArray[Any]]],
) -> ScanBound:
    """The bound for scans of one modality: all images of a group are one scan. at: which images have the modality."""
    scores, region_scores, counted = [], [], set()
    for group in np.unique(groups[at]):
        images = [int(k) for k in np.flatnonzero(at & (groups == group))]
        whole = np.concatenate([ratio[k][inside[k]] for k in images])
        if whole.size < LEAST_VOXELS:
            continue
        names = regions[images[0]]
        parts = {name: np.concatenate([ratio[k][inside[k] & regions[k][name]] for k in images]) for name in names}
        scores.append(scan_score(whole, INTERVAL))
        region_scores.append(scan_score(whole, INTERVAL, parts.values()))
        counted |= {name for name, part in parts.items() if part.size >= LEAST_VOXELS}
    return ScanBound(
        scans=len(scores),
        scans_needed=scans_needed(ALPHA),
        alpha=ALPHA,
        half_width=scan_bound(scores, ALPHA),
        region_half_width=scan_bound(region_scores, ALPHA),
        kinds=[str(kind) for kind in np.unique(kinds[at])],
        regions=sorted(counted),
    )


class _Shape(NamedTuple):
    """What all kinds of noise share: how the standard deviation follows from spread and level, but for its scale."""

    smoothing: float
    floor: float
    exponent: float


def _fit(
    error: NDArray[Any], spread: NDArray[Any], levels: NDArray[Any], inside: NDArray[Any], kinds: NDArray[Any]
) -> _Shape:
    """That of the narrowest intervals that cover their share of each kind's images: in the mean of the logarithm."""
    best, least = _Shape(0.0, FLOORS[0], 0.0), np.inf
    at = [kinds == kind for kind in np.unique(kinds)]
    for smoothing, floor in product(SMOOTHING, FLOORS):
        even = _predicted(spread, levels, _Shape(smoothing, floor, 0.0))
        for exponent in EXPONENTS:
            predicted = even * _by_level(levels, exponent)
            width = sum(
                float(np.log(_scale(error[here], predicted[here], inside[here]) * predicted[here][inside[here]]).sum())
                for here in at
            )
            if width < least:
                best, least = _Shape(smoothing, floor, exponent), width
    return best


def _scale(error: NDArray[Any], predicted: NDArray[Any], inside: NDArray[Any]) -> float:
    """What the predicted standard deviations are multiplied by for their 90 % intervals to cover 90 %."""
    return float(np.quantile(np.abs(error[inside]) / predicted[inside], INTERVAL)) / HALF_WIDTH


def _predicted(spread: NDArray[Any], levels: NDArray[Any], shape: _Shape) -> NDArray[Any]:
    variance = spread.astype(np.float64) ** 2
    if shape.smoothing > 0:
        variance = gaussian_filter(variance, (0, shape.smoothing, shape.smoothing))
    floored = np.sqrt(variance + (shape.floor * levels[:, None, None]) ** 2)
    deviation: NDArray[Any] = floored * _by_level(levels, shape.exponent)
    return deviation


def _by_level(levels: NDArray[Any], exponent: float) -> NDArray[Any]:
    """(N, 1, 1), the factor of the standard deviation at each level."""
    factors: NDArray[Any] = (levels.clip(min=np.finfo(np.float32).tiny) / USUAL_LEVEL)[:, None, None] ** -exponent
    return factors
