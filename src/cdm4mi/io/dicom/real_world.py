"""Adapt real-world value mappings and Philips' scale slope to a new rescale, so that they give the same values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cdm4mi.io.dicom.values import items, number
from cdm4mi.io.quantise import Grid

Rescale = tuple[float, float]
"""(slope, intercept) from stored numbers to values, as a header has them."""
_MAPPING = "RealWorldValueMappingSequence"
_PHILIPS, _SCALE_SLOPE = "Philips MR Imaging DD 001", 0x0E


def remap(dataset: Dataset, frames: list[int], before: list[Rescale], after: list[Rescale], grid: Grid) -> None:
    """Keep the real-world values and Philips' display values of ``dataset``, whose stored numbers have a new rescale.

    ``frames``: indices of its frames, with the rescale of each ``before`` and ``after``; ``grid``: the new stored
    type. A mapping by a table, or one for all frames where their rescales differ, no longer holds and is left out.
    """
    if before == after:
        return
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    for frame, old, new in zip(frames, before, after, strict=True) if per_frame else ():
        _remap(per_frame[frame], old, new, grid)
    shared = [dataset, *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]
    alike = len(set(before)) == len(set(after)) == 1
    for holder in shared:
        if alike:
            _remap(holder, before[0], after[0], grid)
        elif _MAPPING in holder:
            delattr(holder, _MAPPING)


def _remap(holder: Dataset, old: Rescale, new: Rescale, grid: Grid) -> None:
    ratio, offset = new[0] / old[0], (new[1] - old[1]) / old[0]  # the old stored number of a new one
    kept = []
    for item in items(holder, _MAPPING):
        slope, intercept = number(item, "RealWorldValueSlope"), number(item, "RealWorldValueIntercept")
        if slope is None or intercept is None or "RealWorldValueLUTData" in item:
            continue
        item.RealWorldValueSlope, item.RealWorldValueIntercept = slope * ratio, intercept + slope * offset
        for keyword in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
            mapped = number(item, keyword)
            if mapped is not None:
                low, high = grid.limits
                value = int(np.clip(np.rint((mapped - offset) / ratio), low, high))
                item.add_new(keyword, "SS" if grid.dtype.kind == "i" else "US", value)
        kept.append(item)
    if _MAPPING in holder:
        if kept:
            setattr(holder, _MAPPING, Sequence(kept))
        else:
            delattr(holder, _MAPPING)
    for owner in _with_philips(holder):
        # Display value = (stored * slope + intercept) / (slope * scale slope): the product must stay.
        element = owner.private_block(0x2005, _PHILIPS)[_SCALE_SLOPE]
        if isinstance(element.value, (int, float)):
            element.value = float(element.value) / ratio


def _with_philips(holder: Dataset) -> Iterator[Dataset]:
    """The data set, and the items of Philips' private sequences in it, that have a scale slope."""
    tags = holder.keys()  # not the elements, which would all be decoded
    if not any(tag >> 16 == 0x2005 for tag in tags):
        return
    try:
        if _SCALE_SLOPE in holder.private_block(0x2005, _PHILIPS):
            yield holder
    except KeyError:
        pass
    for element in holder.group_dataset(0x2005):
        if element.VR == "SQ":
            for item in element.value:
                yield from _with_philips(item)
