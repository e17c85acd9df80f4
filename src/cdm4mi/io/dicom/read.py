"""A DICOM scan (classic slices or one multi-frame) as a Volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io import geometry
from cdm4mi.io.dicom.frames import (
    DISTINGUISHING,
    Frame,
    clean_bits,
    frames_of,
    padding_of,
    padding_range,
    physical,
    slice_thickness,
)
from cdm4mi.io.dicom.pixels import decode
from cdm4mi.io.dicom.scan import PARALLEL, DicomScan, Instance
from cdm4mi.io.dicom.values import numbers, text, whole
from cdm4mi.io.volume import Source, Volume, check_free_memory


@dataclass
class DicomHeader:
    """Headers of a DICOM scan, to write it again: data sets without pixels, the frame of each slice, stored type."""

    datasets: list[Dataset]
    frames: list[Frame]
    dtype: np.dtype[Any]


def read_dicom(scan: DicomScan) -> Volume:
    """Decode, rescale and stack one scan. What is irregular is named in ``warnings`` or refused."""
    warnings: list[str] = []
    instances = _without_copies(scan.instances, warnings)
    first = instances[0]
    for instance in instances:
        _check_grey(instance)
    frames = [frame for n, instance in enumerate(instances) for frame in _frames(instance, n)]
    order, stacked, notes = _arrange(frames, first)
    warnings += notes
    shape = (*order.shape, whole(first.dataset, "Rows"), whole(first.dataset, "Columns"))
    check_free_memory(first.name, shape)
    ordered = [frames[n] for n in order.reshape(-1)]
    slots: dict[int, list[int]] = {}
    for slot, frame in enumerate(ordered):
        slots.setdefault(frame.instance, []).append(slot)
    array = np.empty((len(ordered), *shape[-2:]), dtype=np.float32)
    padding: NDArray[Any] | None = None
    padded = 0
    for number, instance in enumerate(instances):
        stored = decode(instance, len(slots[number]))
        ends = padding_range(instance.dataset)
        for slot in slots[number]:
            plane = clean_bits(stored[ordered[slot].index], instance.dataset)
            physical(plane, instance.dataset, ordered[slot], array[slot])
            mask = padding_of(plane, ends)
            if mask is not None:
                padding = np.zeros(array.shape, dtype=bool) if padding is None else padding
                padding[slot] = mask
                padded += int(np.count_nonzero(mask))
    if frames[0].mirror is not None:
        warnings.append("MONOCHROME1: brightness turned round, so that large values are bright")
    if padding is not None:
        warnings.append(f"{padded / array.size:.1%} of the pixels are padding")
    modality = text(first.dataset, "Modality")
    return Volume(
        array.reshape(shape),
        stacked.affine,
        modality if modality in {"CT", "MR", "PT"} else None,
        Source(
            "dicom",
            tuple(path for instance in instances for path in instance.file.paths),
            DicomHeader([instance.dataset for instance in instances], ordered, np.dtype(stored.dtype.name)),
            np.dtype(stored.dtype.name),
            ordered[0].slope,
            ordered[0].intercept,
            folder=True,
        ),
        warnings,
        _units(first.dataset, modality),
        None if padding is None else padding.reshape(shape),
        stacked.origins,
    )


def _without_copies(instances: list[Instance], warnings: list[str]) -> list[Instance]:
    """Drop files that are copies of another (same SOP Instance UID)."""
    seen: dict[str, Instance] = {}
    kept = []
    for instance in instances:
        uid = text(instance.dataset, "SOPInstanceUID")
        if uid and uid in seen:
            continue
        seen[uid] = instance
        kept.append(instance)
    if len(kept) < len(instances):
        warnings.append(
            f"{len(instances) - len(kept)} file(s) are copies of others (same SOP Instance UID) and were left out"
        )
    return kept


def _check_grey(instance: Instance) -> None:
    samples = whole(instance.dataset, "SamplesPerPixel", 1)
    photometric = text(instance.dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        raise UserError(
            f"{instance.name}: is a colour image ({photometric or samples}), expected grey (MONOCHROME1 or 2)"
        )


def _frames(instance: Instance, number: int) -> list[Frame]:
    try:
        return frames_of(instance.dataset, number)
    except UserError as error:
        raise UserError(f"{instance.name}: {error}") from None


def _arrange(frames: list[Frame], first: Instance) -> tuple[NDArray[Any], geometry.Stack, list[str]]:
    """Sort frames into slices or (time, slices). Returns their indices, the geometry, and warnings."""
    if any(frame.position is None or frame.orientation is None for frame in frames):
        return np.arange(len(frames)), *_unplaced(frames, first)
    orientation = frames[0].orientation
    assert orientation is not None
    turned = max(float(np.abs(f.orientation - orientation).max()) for f in frames)
    if turned > PARALLEL:
        raise UserError(f"{first.name}: mixed orientations in one multi-frame image, expected parallel slices")
    warnings = []
    spacing = frames[0].pixel_spacing
    if spacing is None:
        spacing = (1.0, 1.0)
        warnings.append("PixelSpacing is missing: 1 mm was assumed")
    positions = np.array([f.position for f in frames])
    normal = geometry.normal_of(orientation)
    labels = geometry.position_labels(positions @ normal)
    counts = np.bincount(labels)
    thickness = slice_thickness(frames[0])
    if counts.max() == 1:
        stacked = geometry.stack(positions, orientation, spacing, thickness)
        return stacked.order, stacked, warnings + stacked.warnings
    if counts.min() != counts.max():
        raise UserError(
            f"{first.name}: doubled slices: {int((counts > 1).sum())} of {len(counts)} places hold more than one slice "
            "(up to {}), expected as many at each".format(counts.max())
        )
    grid, told_apart = _time_points(frames, labels, int(counts[0]), first.name)
    within = np.abs(positions[grid] - positions[grid[0]]).max()
    if within > 0.1:
        raise UserError(
            f"{first.name}: slices at the same depth are shifted in their plane by {within:.1f} mm, expected none"
        )
    stacked = geometry.stack(positions[grid[0]], orientation, spacing, thickness)
    warnings.append(f"time points: {len(grid)} images at each of {grid.shape[1]} places, told apart by {told_apart}")
    return grid[:, stacked.order], stacked, warnings + stacked.warnings


def _time_points(frames: list[Frame], labels: NDArray[Any], count: int, name: str) -> tuple[NDArray[Any], str]:
    """Sort frames at the same positions by time. Returns indices (time, position) and the attribute used."""
    places = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    for same_everywhere in (True, False):
        for keyword, sequence in DISTINGUISHING:
            keys = [frame.key(keyword, sequence) for frame in frames]
            if any(key is None for key in keys) or len({isinstance(key, str) for key in keys}) > 1:
                continue
            sets = [{keys[n] for n in place} for place in places]
            if any(len(s) != count for s in sets) or (same_everywhere and any(s != sets[0] for s in sets)):
                continue
            return np.array([sorted(place, key=lambda n: keys[n]) for place in places]).T, keyword
    raise UserError(
        f"{name}: doubled slices: {count} images at each of {len(places)} places, and no attribute (time, echo, "
        "b-value, acquisition) tells them apart"
    )


def _unplaced(frames: list[Frame], first: Instance) -> tuple[geometry.Stack, list[str]]:
    """Geometry of images without a position in the header: file order, and the spacing where it is given."""
    spacing = frames[0].pixel_spacing
    if spacing is None:
        found = numbers(first.dataset, "ImagerPixelSpacing", 2)
        spacing = (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else (1.0, 1.0)
    affine = np.diag([spacing[1], spacing[0], slice_thickness(frames[0]) or 1.0, 1.0])
    order = np.arange(len(frames))
    return geometry.Stack(order, geometry.lps_to_ras(affine), None), ["the header gives no position in the patient"]


def _units(dataset: Dataset, modality: str) -> str | None:
    if modality == "CT":
        return text(dataset, "RescaleType") or "HU"
    return text(dataset, "Units") or None if modality == "PT" else None
