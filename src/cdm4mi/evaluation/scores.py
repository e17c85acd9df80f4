"""Scores of a restored scan against its reference, slice by slice and as a whole, as a protocol says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Row
from cdm4mi.evaluation.metrics import METRICS, Pair, Scores, Uncertainty, mean_scores, names_of
from cdm4mi.evaluation.resolve import ResolvedProtocol
from cdm4mi.measure.metrics import body_mask

WHOLE, BODY = "image", "body"


def score_stack(
    patient: str,
    scan: str,
    images: Mapping[str, NDArray[Any]],
    target: NDArray[Any],
    resolved: ResolvedProtocol,
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
        resolved: see ``resolve``.
        uncertainty: by method, for coverage, width and CRPS.
        bodies: where the patient is; by default found in the reference.
        progress: called with (slices done, all) after each.

    Raises:
        UserError: values that are not finite, other shapes, slices too small; with scan, slice and method.
    """
    for method, stack in images.items():
        if stack.shape != target.shape:
            raise UserError(f"{scan}, {method}: has shape {stack.shape}, expected the reference's {target.shape}")
    bodies = bodies_of(target, resolved) if bodies is None else bodies
    if not bodies.any():
        bodies = np.ones_like(bodies)
    counted = counted_slices(resolved, bodies)
    stated, wanted = uncertainty or {}, resolved.protocol.metrics
    of_slices = [name for name in wanted if METRICS[name].of != "scan"]
    pooled = resolved.protocol.aggregate == "volume"
    of_scan = [name for name in wanted if METRICS[name].of == "scan" or (pooled and METRICS[name].of == "pixels")]
    rows: list[Row] = []
    for done, k in enumerate(counted, 1):
        for method, stack in images.items():
            spread = stated[method].slice(k) if method in stated else None
            names = [*of_slices, *(names_of("uncertainty") if spread else [])]
            pair = Pair(stack[k], target[k], bodies[k], resolved, spread)
            for region, scores in _by_region(pair, resolved, names, f"{scan}, slice {k}, {method}").items():
                rows.append(Row(patient, scan, k, method, region, scores))
        progress(done, len(counted))
    for method, stack in images.items():
        pair = Pair(stack[counted], target[counted], bodies[counted], resolved)
        for region, scores in _by_region(pair, resolved, of_scan, f"{scan}, {method}").items():
            slices = [row.scores for row in rows if (row.method, row.region) == (method, region)]
            rows.append(Row(patient, scan, None, method, region, mean_scores(slices) | scores))
    return rows


def _by_region(pair: Pair, resolved: ResolvedProtocol, names: Iterable[str], what: str) -> dict[str, Scores]:
    """Scores by region; an image without a body has none there."""
    for name, image in (("image", pair.x), ("reference", pair.ref)):
        # a window would clip infinities out of sight
        if bad := image.size - int(np.count_nonzero(np.isfinite(image))):
            raise UserError(f"{what}: {name} has {bad} pixels that are not finite, expected none")
    found: dict[str, Scores] = {}
    for region in resolved.protocol.regions:
        if region == WHOLE or pair.body.any():
            mask = pair.body if region == BODY else None
            try:
                found[region] = {score: v for name in names for score, v in pair.score(name, mask).items()}
            except UserError as error:
                raise UserError(f"{what}: {error}") from None
    return found


def bodies_of(target: NDArray[Any], resolved: ResolvedProtocol) -> NDArray[Any]:
    """Where the patient is, bool (N, rows, columns): ``body_mask``, and all of a colour image."""
    return np.ones(target.shape[:-1], bool) if resolved.colour else body_mask(target, resolved.modality)


def counted_slices(resolved: ResolvedProtocol, bodies: NDArray[Any]) -> list[int]:
    """Numbers of the slices that the protocol counts; all where it counts those with a body and none has one."""
    count, which = len(bodies), resolved.protocol.slices
    if which == "inner" and count >= 3:
        return list(range(1, count - 1))
    return [k for k in range(count) if which != "body" or bodies[k].any()] or list(range(count))
