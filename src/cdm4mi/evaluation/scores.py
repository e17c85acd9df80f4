"""Scores of a restored scan against its reference, slice by slice and as a whole, as a protocol says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Row, Scores, mean_scores
from cdm4mi.evaluation.ruler import Ruler
from cdm4mi.evaluation.slice_scores import BODY, SlicePair, over_channels
from cdm4mi.measure.flicker import flicker
from cdm4mi.measure.metrics import bias, body_mask, mae, psnr, rmse
from cdm4mi.measure.probabilistic import coverage, crps_gaussian, crps_samples, gaussian_interval, interval_width
from cdm4mi.measure.ssim_foreign import ssim_across_slices

SPREAD_LEVEL = 0.9
"""Of the interval that a map of standard deviations is judged by."""


@dataclass(frozen=True)
class Uncertainty:
    """What a method says of its own error: standard deviations (N, rows, columns), or samples (K, N, rows, columns)."""

    sd: NDArray[Any] | None = None
    samples: NDArray[Any] | None = None


def score_stack(
    patient: str,
    scan: str,
    images: Mapping[str, NDArray[Any]],
    target: NDArray[Any],
    ruler: Ruler,
    uncertainty: Mapping[str, Uncertainty] | None = None,
    bodies: NDArray[Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Rows of every counted slice, and one of the whole scan (``slice`` None), for every method and region.

    Args:
        patient: its name in the rows.
        scan: its name in the rows.
        images: by method, (slices, rows, columns) in physical units, on the reference's grid; of colour channels last.
        target: the reference, of the same shape.
        ruler: see ``ruler_for``.
        uncertainty: by method, for coverage, width and CRPS.
        bodies: where the patient is; by default told from the reference.
        progress: called with (slices done, all) after each.

    Raises:
        UserError: values that are not finite, other shapes, slices too small; with scan, slice and method.
    """
    for method, stack in images.items():
        if stack.shape != target.shape:
            raise UserError(f"{scan}, {method}: has shape {stack.shape}, expected the reference's {target.shape}")
    bodies = bodies_of(target, ruler) if bodies is None else bodies
    if not bodies.any():
        bodies = np.ones_like(bodies)
    shown = counted_slices(ruler, bodies)
    told = uncertainty or {}
    rows: list[Row] = []
    for done, k in enumerate(shown, 1):
        for method, stack in images.items():
            try:
                by_region = SlicePair(stack[k], target[k], bodies[k], ruler).scores()
                for region, scores in by_region.items():
                    if method in told:
                        mask = over_channels(bodies[k], target[k]) if region == BODY else None
                        scores |= _uncertainty_scores(told[method], k, stack[k], target[k], mask)
                    rows.append(Row(patient, scan, k, method, region, scores))
            except UserError as error:
                raise UserError(f"{scan}, slice {k}, {method}: {error}") from None
        progress(done, len(shown))
    for method, stack in images.items():
        for region in ruler.protocol.regions:
            slices = [row.scores for row in rows if (row.method, row.region) == (method, region)]
            masks = bodies[shown] if region == BODY else None
            if slices:
                try:
                    whole = mean_scores(slices) | _stack_scores(stack[shown], target[shown], masks, ruler)
                except UserError as error:
                    raise UserError(f"{scan}, {method}: {error}") from None
                rows.append(Row(patient, scan, None, method, region, whole))
    return rows


def bodies_of(target: NDArray[Any], ruler: Ruler) -> NDArray[Any]:
    """Where the patient is, bool (N, rows, columns): ``body_mask``, and all of a colour image."""
    return np.ones(target.shape[:-1], bool) if ruler.colour else body_mask(target, ruler.modality)


def counted_slices(ruler: Ruler, bodies: NDArray[Any]) -> list[int]:
    """Numbers of the slices that the protocol counts; all where it counts those with a body and none has one."""
    count, which = len(bodies), ruler.protocol.slices
    if which == "inner" and count >= 3:
        return list(range(1, count - 1))
    return [k for k in range(count) if which != "body" or bodies[k].any()] or list(range(count))


def _stack_scores(x: NDArray[Any], ref: NDArray[Any], masks: NDArray[Any] | None, ruler: Ruler) -> Scores:
    """What is a scan's and no slice's: flicker, and for a protocol that pools a scan its errors as one image's."""
    wanted, scores = set(ruler.protocol.metrics), Scores()
    stacks = [(x, ref)] if not ruler.colour else [(x[..., c], ref[..., c]) for c in range(ref.shape[-1])]
    if "flicker" in wanted:
        by_channel = [flicker(ruler.limited(a), ruler.limited(b), masks) for a, b in stacks]
        scores["flicker"] = float(np.mean(by_channel))
    if "ssim_uniform_3d" in wanted:
        pairs = [(ruler.windowed(a), ruler.windowed(b)) for a, b in stacks]
        scores["ssim_uniform_3d"] = float(np.mean([ssim_across_slices(*p, ruler.data_range(p[1])) for p in pairs]))
    masks = None if masks is None else over_channels(masks, ref)
    if ruler.protocol.aggregate == "volume":
        for name, metric in (("mae", mae), ("rmse", rmse), ("bias", bias)):
            if name in wanted:
                scores[name] = metric(ruler.limited(x), ruler.limited(ref), masks)
        if "psnr" in wanted:
            windowed = ruler.windowed(x), ruler.windowed(ref)
            scores["psnr"] = psnr(*windowed, ruler.data_range(windowed[1]), masks)
    return scores


def _uncertainty_scores(
    told: Uncertainty, k: int, x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None
) -> Scores:
    """Coverage and mean width of the method's intervals and its CRPS, in physical units, nothing clipped."""
    if told.samples is not None:
        samples = told.samples[:, k]
        # from the least to the greatest sample: the widest interval that they can tell
        level = (len(samples) - 1) / (len(samples) + 1)
        low, high = samples.min(axis=0), samples.max(axis=0)
        crps = crps_samples(samples, ref)
    elif told.sd is not None:
        level, sd = SPREAD_LEVEL, np.maximum(np.asarray(told.sd[k], np.float64), 1e-12)
        low, high = gaussian_interval(x, sd, level)
        crps = crps_gaussian(x, sd, ref)
    else:
        return {}
    return {
        "interval_level": level,
        "coverage": coverage(low, high, ref, mask),
        "interval_width": interval_width(low, high, mask),
        "crps": float(np.mean(crps if mask is None else crps[mask])),
    }
