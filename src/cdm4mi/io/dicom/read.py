"""A DICOM scan (classic slices or one multi-frame) as a Volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io import geometry
from cdm4mi.io.arrays import HELD, check_free_memory, empty, release, zeros
from cdm4mi.io.dicom.copies import alike, without_copies
from cdm4mi.io.dicom.frames import (
    DISTINGUISHING,
    Frame,
    clean_bits,
    float_padding_range,
    frame_count,
    frames_of,
    padding_of,
    padding_range,
    physical,
    slice_thickness,
)
from cdm4mi.io.dicom.instance import Instance
from cdm4mi.io.dicom.mosaic import mosaic_of, plane_size, says_mosaic
from cdm4mi.io.dicom.pixels import check_claims, check_described, decode
from cdm4mi.io.dicom.scan import PARALLEL, DicomScan
from cdm4mi.io.dicom.values import number, numbers, text, whole
from cdm4mi.io.padding import nan_as_padding
from cdm4mi.io.volume import Source, Volume


@dataclass
class DicomHeader:
    """Headers of a DICOM scan, to write it again: data sets without pixels, the frame of each slice, stored type.

    names: what messages call the file of each data set.
    """

    datasets: list[Dataset]
    names: list[str]
    frames: list[Frame]
    dtype: np.dtype[Any]


def read_dicom(scan: DicomScan) -> Volume:
    """Decode, rescale and stack one scan. What is irregular is named in ``warnings`` or refused."""
    warnings = [f"the files of its series differ in {keyword}: they were read as several" for keyword in scan.mixed]
    instances = without_copies(scan.instances, warnings)
    for instance in instances:
        _check_grey(instance)
        check_described(instance)
    instances, frames = _without_repeats(instances, scan, warnings)
    first = instances[0]
    order, stacked, notes = _arrange(frames, instances)
    warnings += notes
    geometry.require_independent_axes(stacked.affine, first.name, "PixelSpacing and ImagePositionPatient")
    modality = text(first.dataset, "Modality")
    unscaled = _without_rescale(frames, instances) if modality == "CT" else ""
    if unscaled:
        warnings.append(unscaled)
    shape = (*order.shape, *plane_size(first.dataset))
    for instance in instances:
        check_claims(instance, frame_count(instance.dataset), instance.size)
    check_free_memory(first.name, shape)
    ordered = [frames[n] for n in order.reshape(-1)]
    slots: dict[int, list[int]] = {}
    for slot, frame in enumerate(ordered):
        slots.setdefault(frame.instance, []).append(slot)
    array = empty((len(ordered), *shape[-2:]), np.float32)
    padding: NDArray[Any] | None = None
    padded = held = 0
    for index, instance in enumerate(instances):
        stored = decode(instance, frame_count(instance.dataset))
        mosaic = mosaic_of(instance.dataset)
        stored = stored if mosaic is None else mosaic.split(stored[0])
        ends = (float_padding_range if stored.dtype.kind == "f" else padding_range)(instance.dataset)
        for slot in slots[index]:
            plane = clean_bits(stored[ordered[slot].index], instance.dataset)
            physical(plane, instance.dataset, ordered[slot], array[slot])
            mask = padding_of(plane, ends)
            if mask is not None:
                padding = zeros(array.shape, bool) if padding is None else padding
                padding[slot] = mask
                padded += int(np.count_nonzero(mask))
            held += array[slot].nbytes
            if held >= HELD:
                release(array)
                release(stored)
                if padding is not None:
                    release(padding)
                held = 0
    if says_mosaic(first.dataset) and mosaic is None:
        warnings.append("a mosaic that does not say how many slices it has: the tiles are no one plane")
    if frames[0].mirror is not None:
        warnings.append("MONOCHROME1: brightness turned round, so that large values are bright")
    if padding is not None:
        warnings.append(f"{padded / array.size:.1%} of the pixels are padding")
    volume = Volume(
        array.reshape(shape),
        stacked.affine,
        modality or None,
        Source(
            "dicom",
            tuple(path for instance in instances for path in instance.file.paths),
            DicomHeader(
                [instance.dataset for instance in instances],
                [instance.name for instance in instances],
                ordered,
                np.dtype(stored.dtype.name),
            ),
            np.dtype(stored.dtype.name),
            ordered[0].slope,
            ordered[0].intercept,
            folder=True,
        ),
        warnings,
        _units(first.dataset, modality, bool(unscaled)),
        None if padding is None else padding.reshape(shape),
        stacked.origins,
        quantity=scan.quantity,
    )
    return nan_as_padding(volume, first.name) if stored.dtype.kind == "f" else volume


def _check_grey(instance: Instance) -> None:
    samples = whole(instance.dataset, "SamplesPerPixel", 1)
    photometric = text(instance.dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        raise UserError(
            f"{instance.name}: is a colour image ({photometric or samples}), expected grey (MONOCHROME1 or 2)"
        )


def _frames(instances: list[Instance], scan: DicomScan) -> list[Frame]:
    """The frames of these instances that belong to the scan."""
    frames = []
    for n, instance in enumerate(instances):
        count = frame_count(instance.dataset)
        if count > max(1, instance.size):  # each has a byte at least, however well it is packed
            raise UserError(f"{instance.name}: NumberOfFrames is {count}, the file has {instance.size} bytes")
        try:
            found = frames_of(instance.dataset, n)
        except UserError as error:
            raise UserError(f"{instance.name}: {error}") from None
        several = len(found) > 1
        frames += [frame for frame in found if not several or scan.holds(frame.groups)]
    return frames


def _without_repeats(
    instances: list[Instance], scan: DicomScan, warnings: list[str]
) -> tuple[list[Instance], list[Frame]]:
    """Where some places hold more slices than others, drop those that repeat another's pixels under another UID."""
    frames = _frames(instances, scan)
    if len(frames) > len(instances) or any(frame.position is None or frame.orientation is None for frame in frames):
        return instances, frames
    labels = _labels(frames)
    counts = np.bincount(labels)
    if counts.min() == counts.max():
        return instances, frames
    kept = []
    for label in range(len(counts)):
        kept += [image[0] for image in alike(instances[n] for n in np.flatnonzero(labels == label))]
    if len(kept) == len(instances):
        return instances, frames
    repeats = len(instances) - len(kept)
    warnings.append(f"{repeats} file(s) repeat the place and pixels of another under another UID and were left out")
    return kept, _frames(kept, scan)


def _labels(frames: list[Frame]) -> NDArray[Any]:
    """A number for the place of each frame along the normal of the first."""
    assert frames[0].orientation is not None
    normal = geometry.normal_of(frames[0].orientation)
    return geometry.position_labels(np.array([frame.position for frame in frames]) @ normal)


def _arrange(frames: list[Frame], instances: list[Instance]) -> tuple[NDArray[Any], geometry.Stack, list[str]]:
    """Sort frames into slices or (time, slices). Returns their indices, the geometry, and warnings."""
    first = instances[0]
    unplaced = [n for n, frame in enumerate(frames) if _not_usable(frame)]
    if len(unplaced) == len(frames):
        return np.arange(len(frames)), *_unplaced(frames, instances)
    if unplaced:
        keyword, wrong = _not_usable(frames[unplaced[0]])[0]
        raise UserError(f"{_names(frames, unplaced, instances)}: {keyword} {wrong}, {_others(unplaced, frames)}")
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
    labels = _labels(frames)
    counts = np.bincount(labels)
    thickness = slice_thickness(frames[0])
    if counts.max() == 1:
        stacked = geometry.stack(positions, orientation, spacing, thickness)
        return stacked.order, stacked, warnings + stacked.warnings
    if counts.min() != counts.max():
        raise UserError(_uneven(frames, labels, instances))
    grid, told_apart = _time_points(frames, labels, int(counts[0]), first.name)
    within = np.abs(positions[grid] - positions[grid[0]]).max()
    if within > 0.1:
        raise UserError(
            f"{first.name}: slices at the same depth are shifted in their plane by {within:.1f} mm, expected none"
        )
    stacked = geometry.stack(positions[grid[0]], orientation, spacing, thickness)
    warnings.append(f"time points: {len(grid)} images at each of {grid.shape[1]} places, told apart by {told_apart}")
    return grid[:, stacked.order], stacked, warnings + stacked.warnings


def _uneven(frames: list[Frame], labels: NDArray[Any], instances: list[Instance]) -> str:
    """What is wrong with a scan that has more slices at some places than at others."""
    counts = np.bincount(labels)
    for keyword, sequence in DISTINGUISHING:
        keys = [frame.key(keyword, sequence) for frame in frames]
        times = sorted(set(keys), key=str) if len({type(key) for key in keys}) == 1 else []
        if len(times) != counts.max() or len(set(zip(keys, labels.tolist(), strict=True))) < len(keys):
            continue
        cut_short = [time for time in times if keys.count(time) < len(counts)]
        if len(cut_short) == 1:
            there = [n for n, key in enumerate(keys) if key == cut_short[0]]
            time = f"{cut_short[0]:g}" if isinstance(cut_short[0], float) else cut_short[0]
            return (
                f"{_names(frames, there, instances)}: the time point of {keyword} {time} lacks "
                f"{len(counts) - len(there)} of {len(counts)} slices, expected as many at each (leave these files out)"
            )
    doubled = np.flatnonzero(labels == int(np.argmax(counts)))
    position = ", ".join(f"{value:g}" for value in frames[doubled[0]].position)
    return (
        f"{_names(frames, doubled, instances)}: doubled slices: {len(doubled)} different ones at one place ({position} "
        f"mm); {int((counts > 1).sum())} of {len(counts)} places hold more than one, expected as many at each"
    )


def _names(frames: list[Frame], chosen: Iterable[int], instances: list[Instance]) -> str:
    """The files of some frames, three at most by name; of images of several frames their numbers, from 1, too."""
    names = list(dict.fromkeys(_name(frames[n], instances[frames[n].instance]) for n in chosen))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _name(frame: Frame, instance: Instance) -> str:
    return f"{instance.name}, frame {frame.index + 1}" if frame_count(instance.dataset) > 1 else instance.name


def _time_points(frames: list[Frame], labels: NDArray[Any], count: int, name: str) -> tuple[NDArray[Any], str]:
    """Sort frames at the same positions by time. Returns indices (time, position) and the attribute used."""
    places = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    for same_everywhere in (True, False):
        if not same_everywhere:
            indices = _dimensions(frames, places)
            if indices and all(len({indices[n] for n in place}) == count for place in places):
                ordered = [sorted(place, key=indices.__getitem__) for place in places]
                return np.array(ordered).T, "DimensionIndexValues"
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


def _dimensions(frames: list[Frame], places: list[NDArray[Any]]) -> list[tuple[int, ...]]:
    """The dimension indices of each frame but for those that count the slices; [] where frames have none."""
    values = [frame.dimension_index for frame in frames]
    if len({len(value) for value in values}) > 1 or not values[0]:
        return []
    kept = [d for d in range(len(values[0])) if any(len({values[n][d] for n in place}) > 1 for place in places)]
    return [tuple(value[d] for d in kept) for value in values]


def _unplaced(frames: list[Frame], instances: list[Instance]) -> tuple[geometry.Stack, list[str]]:
    """Geometry of images without a position in the header: in the order given, and the spacing where it is given."""
    spacing = frames[0].pixel_spacing
    dataset = instances[0].dataset
    if spacing is None:
        found = numbers(dataset, "ImagerPixelSpacing", 2)
        spacing = (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else (1.0, 1.0)
    step = slice_thickness(frames[0]) or 1.0
    why = " and ".join(f"{keyword} {wrong}" for keyword, wrong in _not_usable(frames[0]))
    warning = f"the header gives no position in the patient ({why})"
    if len(instances) > 1:
        warning += ": stacked in the order of InstanceNumber"
        located = [number(instance.dataset, "SliceLocation") for instance in instances]
        gaps = np.diff([value for value in located if value is not None])
        if len(gaps) == len(instances) - 1 and gaps.any() and np.abs(gaps - gaps[0]).max() <= geometry.EVEN_MM:
            step = abs(float(gaps[0]))
    affine = np.diag([spacing[1], spacing[0], step, 1.0])
    return geometry.Stack(np.arange(len(frames)), geometry.lps_to_ras(affine), None), [warning]


def _not_usable(frame: Frame) -> list[tuple[str, str]]:
    """(attribute, what is wrong with it) where a frame's place in the patient is not known."""
    wrong = []
    for keyword, sequence, found in (
        ("ImagePositionPatient", "PlanePositionSequence", frame.position),
        ("ImageOrientationPatient", "PlaneOrientationSequence", frame.orientation),
    ):
        if found is None:
            stated = frame.key(keyword, sequence) or frame.key(keyword, None)
            wrong.append((keyword, "is missing" if stated is None else "cannot be used"))
    return wrong


def _others(lacking: list[int], frames: list[Frame]) -> str:
    return f"expected one ({len(frames) - len(lacking)} of {len(frames)} images have it)"


def _without_rescale(frames: list[Frame], instances: list[Instance]) -> str:
    """What a CT lacks to be in HU, as a warning; "" for nothing. Refused where some of its images have it."""
    missing = {}
    for keyword, assumed in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        without = [
            n
            for n, frame in enumerate(frames)
            if "ModalityLUTSequence" not in instances[frame.instance].dataset
            and frame.key(keyword, "PixelValueTransformationSequence") is None
            and frame.key(keyword, None) is None
        ]
        if not without or instances[0].holds_floats():
            continue
        if len(without) < len(frames):
            named = _names(frames, without, instances)
            raise UserError(f"{named}: {keyword} is missing, {_others(without, frames)}")
        missing[keyword] = assumed
    if len(missing) == 2:
        return f"{' and '.join(missing)} are missing: the stored numbers were taken as HU"
    return "".join(f"{keyword} is missing: {assumed} was assumed" for keyword, assumed in missing.items())


def _units(dataset: Dataset, modality: str, unscaled: bool) -> str | None:
    if modality == "CT":
        return text(dataset, "RescaleType") or (None if unscaled else "HU")
    return text(dataset, "Units") or None if modality == "PT" else None
