"""Adapt real-world value mappings and Philips' scale slope to a new rescale, so that they give the same values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

from cdm4mi.io.dicom.values import items, number, private_value
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
    for owner in _philips(holder):
        # Display value = (stored * slope + intercept) / (slope * scale slope): the product must stay.
        if isinstance(private_value(owner, 0x2005, _PHILIPS, _SCALE_SLOPE), (int, float)):
            element = owner.private_block(0x2005, _PHILIPS)[_SCALE_SLOPE]
            element.value = float(element.value) / ratio
        # Beside it stands a copy of the rescale.
        copied = number(owner, "RescaleSlope") if owner is not holder else None
        if copied is not None and math.isclose(copied, old[0], rel_tol=1e-6):
            owner.RescaleSlope, owner.RescaleIntercept = (format_number_as_ds(value) for value in new)


def _philips(holder: Dataset) -> Iterator[Dataset]:
    """The data set, if it has Philips' private elements, and the items of the private sequences in it."""
    # By tag: a group_dataset is a copy, and what is changed in it is lost. The other elements stay undecoded.
    tags = [tag for tag in holder.keys() if tag >> 16 == 0x2005]  # noqa: SIM118
    if tags:
        yield holder
    for tag in tags:
        if holder[tag].VR == "SQ":
            for item in holder[tag].value:
                yield item
                yield from (deeper for deeper in _philips(item) if deeper is not item)
