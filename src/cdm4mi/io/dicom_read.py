"""A DICOM scan (classic slices or one multi-frame) as a Volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io import geometry
from cdm4mi.io.dicom_frames import DISTINGUISHING, Frame, clean_bits, frames_of, numbers, padding_of, physical
from cdm4mi.io.dicom_pixels import decode
from cdm4mi.io.dicom_scan import DicomScan, Instance, text
from cdm4mi.io.volume import Source, Volume, check_memory

# Their numbers mean something (HU, activity, signal), so MONOCHROME1 only says how to show them.
_PHYSICAL = {"CT", "MR", "PT", "NM"}


@dataclass
class DicomHeader:
    """What writing needs: the source headers (no pixels), and for each slice of the array its frame in them."""

    datasets: list[Dataset]
    frames: list[Frame]
    mirror: float | None = None  # array = mirror - value, for MONOCHROME1 images whose numbers are only brightness


def read_dicom(scan: DicomScan) -> Volume:
    """Decode, rescale and stack one scan. What is irregular is named in ``warnings`` or refused."""
    warnings = list(scan.notes)
    instances = _without_copies(scan.instances, warnings)
    first = instances[0]
    for instance in instances:
        _check_grey(instance)
    frames = [frame for n, instance in enumerate(instances) for frame in _frames(instance, n)]
    rows, columns = int(first.dataset.Rows), int(first.dataset.Columns)
    grid, stacked, notes = _arrange(frames, first)
    warnings += notes
    shape = (*grid.shape, rows, columns)
    place = {id(frame): n for n, frame in enumerate(frames)}
    ordered = [frames[n] for n in grid.reshape(-1)]
    check_memory(first.name, shape, 2**62)  # what each file may claim is checked when it is decoded
    array = np.empty((len(frames), rows, columns), dtype=np.float32)
    padding: np.ndarray | None = None
    slot = {id(frame): n for n, frame in enumerate(ordered)}
    by_instance: list[list[Frame]] = [[] for _ in instances]
    for frame in frames:
        by_instance[frame.instance].append(frame)
    stored_dtype = None
    for instance, own in zip(instances, by_instance, strict=True):
        stored = decode(instance, len(own))
        stored_dtype = stored.dtype
        for frame in own:
            plane = clean_bits(stored[frame.index], instance.dataset)
            n = slot[id(frame)]
            array[n] = physical(plane, instance.dataset, frame.slope, frame.intercept)
            mask = padding_of(plane, instance.dataset)
            if mask is not None:
                if padding is None:
                    padding = np.zeros(array.shape, dtype=bool)
                padding[n] = mask
    del place
    modality = text(first.dataset, "Modality") or None
    mirror = _mirror(first.dataset, modality, frames[0])
    if mirror is not None:
        np.subtract(np.float32(mirror), array, out=array)
        warnings.append("MONOCHROME1: brightness turned round, so that large values are bright")
    if padding is not None:
        warnings.append(f"{padding.mean():.1%} of the pixels are padding")
    datasets = [instance.dataset for instance in instances]
    source = Source(
        "dicom",
        tuple(instance.path for instance in instances),
        DicomHeader(datasets, ordered, mirror),
        stored_dtype,
        ordered[0].slope,
        ordered[0].intercept,
    )
    return Volume(
        array.reshape(shape),
        stacked.affine,
        modality if modality in {"CT", "MR", "PT"} else None,
        source,
        warnings,
        _units(first.dataset, modality),
        None if padding is None else padding.reshape(shape),
        stacked.origins,
    )


def _without_copies(instances: list[Instance], warnings: list[str]) -> list[Instance]:
    """Each SOP instance once: a file that lies twice in a folder is the same slice."""
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
    samples = instance.dataset.get("SamplesPerPixel") or 1
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


def _arrange(frames: list[Frame], first: Instance) -> tuple[np.ndarray, geometry.Stack, list[str]]:
    """Indices of the frames as (slices,) or (time, slices), the geometry, and what was noticed."""
    known = [f for f in frames if f.position is not None and f.orientation is not None]
    if len(known) < len(frames):
        return np.arange(len(frames)), *_unplaced(frames, first)
    orientation = frames[0].orientation
    assert orientation is not None
    turned = max(float(np.abs(f.orientation - orientation).max()) for f in frames)  # type: ignore[operator]
    if turned > 0.02:
        raise UserError(f"{first.name}: mixed orientations in one multi-frame image, expected parallel slices")
    warnings = []
    spacing = frames[0].pixel_spacing
    if spacing is None:
        spacing = (1.0, 1.0)
        warnings.append("PixelSpacing is missing: 1 mm was assumed")
    positions = np.array([f.position for f in frames])
    normal = geometry.normal_of(orientation)
    labels = geometry.same_place(positions @ normal)
    counts = np.bincount(labels)
    thickness = _thickness(first.dataset, frames[0])
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


def _time_points(frames: list[Frame], labels: np.ndarray, count: int, name: str) -> tuple[np.ndarray, str]:
    """Indices (time, place), ordered by the first attribute that tells apart the frames at every place."""
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
        f"{name}: doubled slices: {count} images at each of {len(places)} places, and no attribute (time, echo, b-value, "
        "acquisition) tells them apart"
    )


def _unplaced(frames: list[Frame], first: Instance) -> tuple[geometry.Stack, list[str]]:
    """Geometry of images that do not say where they lie: their own frame order, spacing where it is given."""
    spacing = frames[0].pixel_spacing
    if spacing is None:
        found = numbers(first.dataset, "ImagerPixelSpacing", 2)
        spacing = (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else (1.0, 1.0)
    affine = np.diag([spacing[1], spacing[0], _thickness(first.dataset, frames[0]) or 1.0, 1.0])
    order = np.arange(len(frames))
    return geometry.Stack(order, geometry.lps_to_ras(affine), None), ["the header gives no position in the patient"]


def _thickness(dataset: Dataset, frame: Frame) -> float | None:
    measures = next(
        (group.PixelMeasuresSequence[0] for group in frame.groups if group.get("PixelMeasuresSequence")), dataset
    )
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        found = numbers(measures, keyword, 1)
        if found is not None and found[0] > 0:
            return float(found[0])
    return None


def _mirror(dataset: Dataset, modality: str | None, frame: Frame) -> float | None:
    if text(dataset, "PhotometricInterpretation") != "MONOCHROME1" or modality in _PHYSICAL:
        return None
    if dataset.get("ModalityLUTSequence") or dataset.get("PixelRepresentation"):
        return None
    return ((1 << int(dataset.get("BitsStored") or 8)) - 1) * frame.slope + 2 * frame.intercept


def _units(dataset: Dataset, modality: str | None) -> str | None:
    if modality == "CT":
        return text(dataset, "RescaleType") or "HU"
    return text(dataset, "Units") or None if modality == "PT" else None
