"""Every metric: what it computes of an image and its reference, and all that tables, reports and protocols say of it.

A new metric is one entry of ``METRICS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdm4mi.evaluation.units import Units
from cdm4mi.measure.fidelity import LEAST_SIDE, vif
from cdm4mi.measure.flicker import flicker
from cdm4mi.measure.lpips import LEAST_SIDE as LPIPS_SIDE
from cdm4mi.measure.lpips import Lpips, read_lpips
from cdm4mi.measure.metrics import SsimDefinition, bias, mae, psnr, rmse, ssim_map, ssim_mean
from cdm4mi.measure.probabilistic import coverage, crps_gaussian, crps_samples, gaussian_interval, interval_width
from cdm4mi.measure.spectrum import regions_inside, spectrum_error
from cdm4mi.measure.ssim_foreign import ssim_across_slices, ssim_zero_padded
from cdm4mi.measure.tissue import LEAST, cnr, tissue_bias, tissue_classes

PATCH = 32
"""Side of the regions whose spectra are averaged inside a body."""
SPREAD_LEVEL = 0.9
"""Of the interval that a map of standard deviations is judged by."""
NONE = float("nan")
NOTHING = "-"
"""What a table shows for nan."""
Mask = NDArray[Any] | None
Images = tuple[NDArray[Any], NDArray[Any]]
Scores = dict[str, float]
"""By name of the figure."""


@dataclass(frozen=True)
class Uncertainty:
    """What a method says of its own error: standard deviations, of the image's shape, or samples (K, ...)."""

    sd: NDArray[Any] | None = None
    samples: NDArray[Any] | None = None

    def slice(self, k: int) -> Uncertainty:
        """Of slice ``k`` of a stack (slices, rows, columns)."""
        return Uncertainty(
            None if self.sd is None else self.sd[k], None if self.samples is None else self.samples[:, k]
        )


@dataclass
class Pair:
    """An image and its reference as metrics may see them; what metrics share is made once.

    x, ref: in physical units, a slice (rows, columns) or a stack (slices, rows, columns), of colour with channels
    behind. body: where the patient is, bool, without channels. ``windowed``, ``limited`` and ``grey_levels`` are
    (image, reference) in the units of those names.
    """

    x: NDArray[Any]
    ref: NDArray[Any]
    body: NDArray[Any]
    units: Units
    uncertainty: Uncertainty | None = None

    def score(self, name: str, mask: Mask = None) -> Scores:
        """One metric, inside the mask or everywhere; nan stands for what an image cannot have."""
        metric = METRICS[name]
        if not self.units.colour:
            found = metric.score(self, mask)
        elif metric.of in ("pixels", "uncertainty"):
            every = None if mask is None else np.broadcast_to(mask[..., None], self.ref.shape)
            found = metric.score(self, every)
        else:
            return mean_scores([channel.score(name, mask) for channel in self._channels])
        return found if isinstance(found, dict) else {name: found}

    @cached_property
    def _channels(self) -> list[Pair]:
        grey = replace(self.units, colour=False)
        return [Pair(self.x[..., c], self.ref[..., c], self.body, grey) for c in range(self.ref.shape[-1])]

    @cached_property
    def windowed(self) -> Images:
        return self.units.windowed(self.x), self.units.windowed(self.ref)

    @cached_property
    def limited(self) -> Images:
        return self.units.limited(self.x), self.units.limited(self.ref)

    @cached_property
    def grey_levels(self) -> Images:
        return self.units.grey_levels(self.x), self.units.grey_levels(self.ref)

    @cached_property
    def data_range(self) -> float:
        return self.units.data_range(self.windowed[1])

    @cached_property
    def tissues(self) -> dict[str, NDArray[Any]]:
        return tissue_classes(self.ref, self.units.modality, self.body)

    @cached_property
    def gaussian_map(self) -> NDArray[Any]:
        return ssim_map(*self.windowed, self.data_range, "gaussian")

    @cached_property
    def uniform_map(self) -> NDArray[Any]:
        return ssim_map(*self.windowed, self.data_range, "uniform")

    @cached_property
    def interval(self) -> tuple[float, NDArray[Any], NDArray[Any]]:
        """Level, lower and upper ends of the method's intervals, in physical units, nothing clipped."""
        assert self.uncertainty is not None
        samples, sd = self.uncertainty.samples, self.uncertainty.sd
        if samples is not None:
            # from the least to the greatest sample: the widest interval that they can tell
            return (len(samples) - 1) / (len(samples) + 1), samples.min(axis=0), samples.max(axis=0)
        return SPREAD_LEVEL, *gaussian_interval(self.x, _positive(sd), SPREAD_LEVEL)


@dataclass(frozen=True)
class Metric:
    """One metric of the table ``METRICS``.

    name: in a protocol, and of its figure. score: a number, or several by name, of a pair inside a mask. of: "pixels"
    (of any shape: over all channels at once, and of a whole scan where a protocol pools it), "slice" (rows, columns),
    "scan" (slices, rows, columns) or "uncertainty" (of a method that states one; no protocol names it); but for
    pixels, a colour image has the mean of its channels. title: in headings; none: the name with spaces. unit: "dB",
    ``ERROR`` for that of the protocol's errors, ``PHYSICAL`` for the scan's own, or none. digits: after the point;
    None for four in all. better: which way. about: the definition, where a title has several. prefix: of the figures'
    names, where there are several.
    """

    name: str
    score: Callable[[Pair, Mask], float | Scores]
    title: str = ""
    of: Literal["pixels", "slice", "scan", "uncertainty"] = "slice"
    unit: str = ""
    digits: int | None = None
    better: Literal["more", "less", "neither"] = "more"
    about: str = ""
    prefix: str = ""


ERROR, PHYSICAL = "error", "physical"


def metric_of(score: str) -> Metric:
    """The metric that a figure belongs to: ``bias_lung`` to ``tissue_bias``; one of its own for an unknown name."""
    if score in METRICS:
        return METRICS[score]
    several = (m for m in METRICS.values() if m.prefix and score.startswith(m.prefix))
    unknown = Metric(score, lambda pair, mask: NONE, better="neither")
    return replace(next(several, unknown), name=score)


def title(score: str, among: Sequence[str] = (), units: Mapping[str, str] = {}) -> str:
    """A figure's name in a heading, with its unit.

    among: the figures that it stands beside; only the first of one title (SSIM) goes without its definition's name.
    units: what ``ERROR`` and ``PHYSICAL`` stand for.
    """
    metric = metric_of(score)
    words = metric.title or score.replace("_", " ")
    if metric.about and score != next((m for m in among if metric_of(m).title == metric.title), score):
        words = f"{words} ({score.partition('_')[2].replace('_', ' ')})"
    unit = units.get(metric.unit, "") if metric.unit in (ERROR, PHYSICAL) else metric.unit
    return f"{words} {unit if unit.startswith('on ') else f'({unit})'}" if unit else words


def shown(value: float, score: str) -> str:
    """A figure with the digits that it deserves."""
    if math.isnan(value):
        return NOTHING
    digits = metric_of(score).digits
    if digits is None:  # as many in every row of a column
        digits = 4 if abs(value) < 1 else 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}"


def mean_scores(several: Sequence[Mapping[str, float]]) -> Scores:
    """Mean of each metric over those that have it; nan where none has."""
    names = dict.fromkeys(name for scores in several for name in scores)
    return {name: _mean([scores[name] for scores in several if name in scores]) for name in names}


def _mean(values: Sequence[float]) -> float:
    held = [value for value in values if not math.isnan(value)]
    return float(np.mean(held)) if held else NONE


def _psnr(pair: Pair, mask: Mask) -> float:
    # a constant reference has no range of its own
    return psnr(*pair.windowed, pair.data_range, mask) if pair.data_range > 0 else NONE


def _ssim(definition: SsimDefinition) -> Callable[[Pair, Mask], float]:
    def score(pair: Pair, mask: Mask) -> float:
        if pair.data_range == 0:
            return NONE
        similarity = pair.gaussian_map if definition == "gaussian" else pair.uniform_map
        return ssim_mean(similarity, definition, mask)

    return score


def _ssim_padded(pair: Pair, mask: Mask) -> float:
    return ssim_zero_padded(*pair.windowed, pair.data_range) if mask is None and pair.data_range > 0 else NONE


def _vif(pair: Pair, mask: Mask) -> float:
    return vif(*pair.grey_levels, pair.units.grey_count, mask) if min(pair.x.shape) >= LEAST_SIDE else NONE


def _spectrum(pair: Pair, mask: Mask) -> float:
    x, ref = pair.windowed if mask is None else (regions_inside(image, mask, PATCH) for image in pair.windowed)
    return spectrum_error(x, ref) if x.size and np.ptp(ref) > 0 else NONE


def _lpips(pair: Pair, mask: Mask) -> float:
    files = pair.units.lpips
    if mask is not None or files is None or min(pair.x.shape) < LPIPS_SIDE:
        return NONE
    start, end = pair.units.scale
    x, ref = ((image - start) * (2 / (end - start)) - 1 for image in pair.windowed)
    return _network(*files)(x, ref)


@lru_cache
def _network(backbone: str, linear: str) -> Lpips:
    """Read once."""
    return read_lpips(Path(backbone), Path(linear))


def _tissue_bias(pair: Pair, mask: Mask) -> Scores:
    inside = {name: at if mask is None else at & mask for name, at in pair.tissues.items()}
    return {f"bias_{name}": error for name, error in tissue_bias(*pair.limited, inside).items()}


def _cnr_ratio(pair: Pair, mask: Mask) -> float:
    """CNR of the image over the reference's: soft tissue against fat in CT, foreground against background elsewhere."""
    names = ("soft", "fat") if "fat" in pair.tissues else ("foreground", "background")
    first, second = (pair.tissues[name] if mask is None else pair.tissues[name] & mask for name in names)
    if min(first.sum(), second.sum()) < LEAST:
        return NONE
    found, expected = (cnr(image, first, second) for image in pair.limited)
    return found / expected if 0 < expected < np.inf else NONE


def _crps(pair: Pair, mask: Mask) -> float:
    assert pair.uncertainty is not None
    samples, sd = pair.uncertainty.samples, pair.uncertainty.sd
    crps = crps_gaussian(pair.x, _positive(sd), pair.ref) if samples is None else crps_samples(samples, pair.ref)
    return float(np.mean(crps if mask is None else crps[mask]))


def _positive(sd: NDArray[Any] | None) -> NDArray[np.float64]:
    return np.maximum(np.asarray(sd, np.float64), 1e-12)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("psnr", _psnr, "PSNR", of="pixels", unit="dB", digits=2),
        Metric("ssim_gaussian", _ssim("gaussian"), "SSIM", digits=4, about="Gaussian window 11 x 11, sigma 1.5"),
        Metric("ssim_uniform", _ssim("uniform"), "SSIM", digits=4, about="uniform window 7 x 7"),
        Metric(
            "ssim_gaussian_padded",
            _ssim_padded,
            "SSIM",
            digits=4,
            about="Gaussian window 11 x 11, sigma 1.5, image continued with zeros",
        ),
        Metric(
            "ssim_uniform_3d",
            lambda pair, mask: ssim_across_slices(*pair.windowed, pair.data_range),
            "SSIM",
            of="scan",
            digits=4,
            about="uniform window 7 x 7 x 7 over the stack of slices",
        ),
        Metric("mae", lambda pair, mask: mae(*pair.limited, mask), "MAE", of="pixels", unit=ERROR, better="less"),
        Metric("rmse", lambda pair, mask: rmse(*pair.limited, mask), "RMSE", of="pixels", unit=ERROR, better="less"),
        Metric("bias", lambda pair, mask: bias(*pair.limited, mask), of="pixels", unit=ERROR, better="neither"),
        Metric("tissue_bias", _tissue_bias, unit=ERROR, better="neither", prefix="bias_"),
        Metric("vif", _vif, "VIF", digits=3),
        Metric("spectrum", _spectrum, "spectrum distance", unit="dB", digits=2, better="less"),
        Metric("cnr_ratio", _cnr_ratio, "CNR over the reference's", digits=3, better="neither"),
        Metric("flicker", lambda pair, mask: flicker(*pair.limited, mask), of="scan", unit=ERROR, better="less"),
        Metric("lpips", _lpips, "LPIPS", better="less"),
        Metric("interval_level", lambda pair, mask: pair.interval[0], of="uncertainty", digits=3, better="neither"),
        Metric(
            "coverage",
            lambda pair, mask: coverage(*pair.interval[1:], pair.ref, mask),
            of="uncertainty",
            digits=3,
            better="neither",
        ),
        Metric(
            "interval_width",
            lambda pair, mask: interval_width(*pair.interval[1:], mask),
            of="uncertainty",
            unit=PHYSICAL,
            better="neither",
        ),
        Metric("crps", _crps, "CRPS", of="uncertainty", unit=PHYSICAL, better="less"),
    )
}


def names_of(*kinds: str) -> list[str]:
    """Names of the metrics ``of`` these kinds."""
    return [metric.name for metric in METRICS.values() if metric.of in kinds]
