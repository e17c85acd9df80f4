"""Calibration: from the spread of a few samples to a standard deviation whose intervals cover what they claim.

Fitted on patients that the model was not trained on. With s the samples' standard deviation, smoothed over a few pixels
(a handful of samples says little of one pixel), and the noise level l of the scan, the calibrated standard deviation is
scale d with d = sqrt(s^2 + (floor l)^2) (l / 0.1)^-exponent b^power: samples are surer of themselves than they should
be, in white noise most where it is weak, and in an even object less than in one that is full of detail. That is what b
says of the scan: by what factor its bootstrap errors (``inference.bootstrap``) differ from the first root. The interval
is the mean of the samples +- 1.645 of it. ``scale`` is the quantile of |error| / d that makes the interval cover 90 %
of the foreground (split conformal prediction, Vovk et al. 2005; normalised scores as Lei et al. 2018, section 5.2).
Scale and exponent are of each kind of noise by itself, smoothing, floor and power of all kinds of a modality; all but
the scale are those of least width, the geometric mean, in which weak noise counts as much as strong. Images that are
no scans may be among those of the fit, but not among those of the scale.
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
EXPONENTS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_RATIO = 0.05
"""Of bootstrap errors over spread: an image that shows next to nothing makes no interval of no width."""
THINNED = 2
"""Of so many rows and columns one is enough to compare exponents and powers."""
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
    "strength",
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


def _modality_of(kind: str) -> str:
    """The modality that ``noise_kind`` put into a name."""
    return kind.rpartition(" noise in ")[2].partition(" ")[0]


def calibrated(
    calibration: Calibration,
    spread: NDArray[Any],
    level: float | NDArray[Any],
    kind: str,
    bootstrap: float = 1.0,
) -> NDArray[Any]:
    """The calibrated standard deviation of slices (N, rows, columns), on [-1, 1] as spread and level are.

    level: of all slices, or of each (N,); kind: of their noise, one of ``calibration.kinds``; bootstrap: the scan's
    ``bootstrap_ratio``.
    """
    levels = np.broadcast_to(level, len(spread))
    fitted = calibration.kinds[kind]
    even = _even(spread, levels, fitted.smoothing, fitted.floor)
    factor = fitted.scale * _by_level(levels, fitted.exponent) * bootstrap**fitted.bootstrap_power
    deviation: NDArray[Any] = (factor * even).astype(np.float32)
    return deviation


def bootstrap_ratio(
    fitted: KindCalibration,
    error: NDArray[Any],
    spread: NDArray[Any],
    level: float | NDArray[Any],
    inside: NDArray[np.bool_],
) -> float:
    """By what factor the bootstrap errors of images (N, rows, columns) differ from the spread of their samples.

    fitted: of the kind of their noise. error, spread, level: on [-1, 1], as ``bootstrap.repeated`` gives them; inside:
    the foreground. 1 without any.
    """
    even = _even(spread, np.broadcast_to(level, len(spread)), fitted.smoothing, fitted.floor)
    return _ratio(error, even, inside)


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
    repeated: NDArray[Any] | None = None,
    trained_on: Collection[str] = (),
    scans: Sequence[bool] | None = None,
    modalities: Sequence[str] = (),
    regions: Sequence[Mapping[str, NDArray[Any]]] = (),
) -> Calibration:
    """Fit on images that the model was not trained on.

    error, spread: mean of the samples minus truth, and their standard deviation, (N, rows, columns) on [-1, 1]; levels:
    the noise level of each image; inside: the foreground, bool; groups: whose image it is; kinds: of its noise;
    repeated: the bootstrap errors, like error; None: the intervals do without them. trained_on: groups of whom the
    model saw other slices; scans: whether each image is of a scan, not made up; None: all are. modalities, regions
    (``conformal.regions_of``): of each image, for bounds that hold for whole scans, one for each modality; without
    them there are none. Scales and coverages are those of images of scans; coverages after, and the scores, are of each
    group by what the others give (of the odd images by the even ones where there is one group only).
    """
    images = _Images(error, spread, np.asarray(levels, np.float64), inside, np.array(kinds), repeated)
    names = np.array(groups)
    if len(set(groups)) == 1:
        names = np.arange(len(error)) % 2
    seen = np.ones(len(error), bool) if scans is None else np.array(scans, bool)
    before = float((np.abs(error) <= HALF_WIDTH * spread)[seen][inside[seen]].mean())
    which = images.kinds
    counted = [str(kind) for kind in np.unique(which) if (which == kind).sum() >= LEAST_IMAGES]
    ratio = np.empty(error.shape)  # |error| over the standard deviation that is calibrated on the other groups
    judged = np.zeros(len(error), bool)
    for name in np.unique(names):
        rest = names != name
        predicted = _predicted(_fits(images.of(rest)), images)
        for kind in counted:
            fitted, left_out = rest & seen & (which == kind), ~rest & (which == kind)
            if fitted.any():
                deviation = _scale(error[fitted], predicted[fitted], inside[fitted]) * predicted[left_out]
                ratio[left_out], judged[left_out] = np.abs(error[left_out]) / deviation, True
    judged &= seen
    shapes = _fits(images)
    predicted = _predicted(shapes, images)
    found = {}
    for kind in counted:
        at = seen & (which == kind)
        if (at & judged).any():
            shape = shapes[_modality_of(kind)]
            found[kind] = KindCalibration(
                scale=_scale(error[at], predicted[at], inside[at]),
                smoothing=shape.smoothing,
                floor=shape.floor,
                exponent=shape.exponents[kind],
                bootstrap_power=shape.power,
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


class _Images(NamedTuple):
    """What a calibration is fitted on: of images (N, rows, columns) and their levels and kinds (N,)."""

    error: NDArray[Any]
    spread: NDArray[Any]
    levels: NDArray[np.float64]
    inside: NDArray[Any]
    kinds: NDArray[Any]
    repeated: NDArray[Any] | None

    def of(self, which: NDArray[Any]) -> _Images:
        """Some of the images."""
        return self._replace(**{name: part[which] for name, part in self._asdict().items() if part is not None})

    def ratios(self, even: NDArray[Any]) -> NDArray[np.float64]:
        """Of each image by what factor the bootstrap errors differ from the spread, (N,); 1 without any."""
        found = np.ones(len(even))
        if self.repeated is not None:
            for n, inside in enumerate(self.inside):
                found[n] = _ratio(self.repeated[n], even[n], inside)
        return found


class _Shape(NamedTuple):
    """How the standard deviation follows from spread, level and bootstrap, but for its scale. exponents: of the level,
    by kind of noise; power: of the bootstrap ratio."""

    smoothing: float
    floor: float
    power: float
    exponents: Mapping[str, float]

    def predicted(self, images: _Images) -> NDArray[Any]:
        """That of some images; of a kind that the fit has not seen, as if it were as sure at every level."""
        exponents = np.array([self.exponents.get(str(kind), 0.0) for kind in images.kinds])
        even = _even(images.spread, images.levels, self.smoothing, self.floor)
        deviation: NDArray[Any] = even * _factors(images.levels, exponents, images.ratios(even), self.power)
        return deviation


def _fits(images: _Images) -> dict[str, _Shape]:
    """``_fit`` of the images of each modality."""
    modalities = _modalities(images)
    return {str(name): _fit(images.of(modalities == name)) for name in np.unique(modalities)}


def _predicted(shapes: Mapping[str, _Shape], images: _Images) -> NDArray[Any]:
    """The standard deviation, but for its scale, of images by the shapes of their modalities; 1 where there is none."""
    deviation, modalities = np.ones(images.error.shape), _modalities(images)
    for name, shape in shapes.items():
        at = modalities == name
        deviation[at] = shape.predicted(images.of(at))
    return deviation


def _modalities(images: _Images) -> NDArray[Any]:
    """The modality of each image, (N,)."""
    return np.array([_modality_of(str(kind)) for kind in images.kinds])


def _fit(images: _Images) -> _Shape:
    """That of the narrowest intervals that cover their share of each kind's images: in the mean of the logarithm."""
    best, least = _Shape(0.0, FLOORS[0], 0.0, {}), np.inf
    thin = (slice(None), slice(None, None, THINNED), slice(None, None, THINNED))
    error, inside = np.abs(images.error[thin]), images.inside[thin]
    for smoothing, floor in product(SMOOTHING, FLOORS):
        even = _even(images.spread, images.levels, smoothing, floor)
        ratios = images.ratios(even)
        for power in (0.0,) if images.repeated is None else POWERS:
            exponents, width = {}, 0.0
            for kind in np.unique(images.kinds):
                at = images.kinds == kind
                factors = {
                    exponent: np.log(_factors(images.levels[at], exponent, ratios[at], power)).ravel()
                    for exponent in EXPONENTS
                }
                widths = _log_widths(error[at], even[thin][at], inside[at], factors)
                exponents[str(kind)] = _least(widths)
                width += widths[exponents[str(kind)]]
            if width < least:
                best, least = _Shape(smoothing, floor, power, exponents), width
    return best


def _least(widths: Mapping[float, float]) -> float:
    """The exponent of the least width; the smallest of those that are as good, as all are where there is one level."""
    return min(widths, key=lambda exponent: (round(widths[exponent], 3), abs(exponent)))


def _log_widths(
    error: NDArray[Any], even: NDArray[Any], inside: NDArray[Any], factors: Mapping[float, NDArray[Any]]
) -> dict[float, float]:
    """The sum over the foreground of the logarithm of what covers its share, for logarithms of factors (N,) by
    exponent."""
    image = np.nonzero(inside)[0]
    if image.size == 0:
        return dict.fromkeys(factors, 0.0)
    known = np.log(even[inside])
    relative = np.log(np.maximum(error[inside], np.finfo(np.float64).tiny)) - known
    return {
        exponent: float(known.mean() + logs[image].mean() + np.quantile(relative - logs[image], INTERVAL)) * image.size
        for exponent, logs in factors.items()
    }


def _scale(error: NDArray[Any], predicted: NDArray[Any], inside: NDArray[Any]) -> float:
    """What the predicted standard deviations are multiplied by for their 90 % intervals to cover 90 %."""
    return float(np.quantile(np.abs(error[inside]) / predicted[inside], INTERVAL)) / HALF_WIDTH


def _ratio(error: NDArray[Any], even: NDArray[Any], inside: NDArray[Any]) -> float:
    """``_scale`` of bootstrap errors, at least ``LEAST_RATIO``; 1 where nothing is inside."""
    return max(LEAST_RATIO, _scale(error, even, inside)) if inside.any() else 1.0


def _even(spread: NDArray[Any], levels: NDArray[Any], smoothing: float, floor: float) -> NDArray[Any]:
    """The predicted standard deviation of slices (N, rows, columns) of levels (N,), without the factor of the level."""
    variance = spread.astype(np.float64) ** 2
    if smoothing > 0:
        variance = gaussian_filter(variance, (0, smoothing, smoothing))
    floored: NDArray[Any] = np.sqrt(variance + (floor * levels[:, None, None]) ** 2)
    return floored


def _by_level(levels: NDArray[Any], exponent: float | NDArray[Any]) -> NDArray[Any]:
    """(N, 1, 1), the factor of the standard deviation at each level; exponent: of all, or of each (N,)."""
    factors: NDArray[Any] = (levels.clip(min=np.finfo(np.float32).tiny) / USUAL_LEVEL) ** -np.asarray(exponent)
    return factors[:, None, None]


def _factors(
    levels: NDArray[Any],
    exponent: float | NDArray[Any],
    ratios: NDArray[Any],
    power: float,
) -> NDArray[Any]:
    """(N, 1, 1), the factor by level and bootstrap; exponent: of all, or of each (N,)."""
    factors: NDArray[Any] = _by_level(levels, exponent) * (ratios**power)[:, None, None]
    return factors
