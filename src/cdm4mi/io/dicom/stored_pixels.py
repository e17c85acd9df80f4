"""Pixel data of a derived image: the stored type and rescale that hold its values, and all attributes that follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

from cdm4mi.io import arrays
from cdm4mi.io.dicom.frames import Frame, padding_range
from cdm4mi.io.dicom.mosaic import mosaic_of
from cdm4mi.io.dicom.read import DicomHeader
from cdm4mi.io.dicom.real_world import Rescale, remap
from cdm4mi.io.dicom.values import item_of, text, whole
from cdm4mi.io.quantise import Grid, fine_enough, refine


def _ds(value: float) -> float:
    """The number as DICOM will hold it in its 16 characters."""
    return float(format_number_as_ds(float(value)))


def stored_types(planes: NDArray[Any], header: DicomHeader) -> list[Grid]:
    """Choose the stored type of each plane: one for the series, unless the source rescales each slice differently."""
    scalings = {(f.slope, f.intercept) for f in header.frames}
    first = header.datasets[header.frames[0].instance]
    if len(scalings) == 1:
        return [_grid(planes, first, header.frames[0])] * len(planes)
    found = [_grid(planes[n : n + 1], first, frame) for n, frame in enumerate(header.frames)]
    if len({g.dtype for g in found}) > 1 or len({g.bits for g in found}) > 1:
        # One type for the series: signed 16 bits hold what either holds, at half the fineness.
        found = [_fallback(planes[n : n + 1], np.dtype(np.int16), f) for n, f in enumerate(header.frames)]
    return found


def _grid(values: NDArray[Any], dataset: Dataset, frame: Frame) -> Grid:
    signed = bool(whole(dataset, "PixelRepresentation"))
    allocated = whole(dataset, "BitsAllocated", 16)
    allocated = allocated if allocated in (8, 16, 32) else 16
    bits = min(whole(dataset, "BitsStored") or allocated, allocated)
    kept = Grid(np.dtype(f"{'i' if signed else 'u'}{allocated // 8}"), frame.slope, frame.intercept, bits)
    exact = refine(values, [kept, Grid(kept.dtype, kept.slope, kept.intercept)], _ds, only_exact=True)
    if exact is not None:
        return exact
    width = max(allocated // 8, 2)
    candidates = [Grid(np.dtype(f"{kind}{width}"), kept.slope, kept.intercept) for kind in ("iu" if signed else "ui")]
    has_rescale = any("RescaleSlope" in g or "PixelValueTransformationSequence" in g for g in frame.groups)
    if not has_rescale:
        # An MR image has no rescale by the standard: plain integers where their step is small against the span.
        for candidate in [Grid(candidates[0].dtype, 1.0, 0.0, bits), *candidates]:
            if candidate.fits(*arrays.limits(values)) and fine_enough(candidate, values, 1.0):
                return candidate
    if dataset.get("Modality") != "PT":  # PET demands an intercept of 0
        low, _ = arrays.limits(values)
        steps = np.floor((low - kept.intercept) / kept.slope) if kept.slope > 0 else 0.0
        candidates.append(Grid(np.dtype(f"u{width}"), kept.slope, _ds(kept.intercept + steps * kept.slope)))
    return refine(values, candidates, _ds) or _fallback(values, candidates[0].dtype, frame)


def _fallback(values: NDArray[Any], dtype: np.dtype[Any], frame: Frame) -> Grid:
    """Grid with the finest slope at which the type holds the values, at the source's intercept."""
    low, high = (float(np.float32(end) - np.float32(frame.intercept)) for end in arrays.limits(values))
    reach = max(abs(low), abs(high)) or 1.0
    if low < 0 and dtype.kind == "u":
        dtype = np.dtype(f"i{dtype.itemsize}")
    top = (1 << (dtype.itemsize * 8 - (dtype.kind == "i"))) - 1
    return Grid(dtype, _ds(reach / top * (1 + 1e-9) + 1e-300), _ds(frame.intercept))


def set_pixels(
    dataset: Dataset, planes: NDArray[Any], order: list[int], grids: list[Grid], header: DicomHeader
) -> None:
    """Set the pixel data of one instance, whose frames show the planes ``order``, and what depends on them."""
    # Of an image that holds several quantities, the frames of one are left: they are counted anew.
    frames = [replace(header.frames[n], index=index) for index, n in enumerate(order)]
    source = header.datasets[frames[0].instance]
    mosaic = mosaic_of(source)
    grid = grids[order[0]]
    stored = arrays.empty((len(order), *planes.shape[1:]), grid.dtype)
    for out, n in zip(arrays.planes(stored), order, strict=True):
        out[...] = grids[n].encode(planes[n])
        arrays.release(planes)
    signed = grid.dtype.kind == "i"
    dataset.SamplesPerPixel = 1
    if not dataset.get("PhotometricInterpretation"):
        dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = grid.dtype.itemsize * 8
    dataset.BitsStored = grid.bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    for n, frame in zip(order, frames, strict=True):
        _set_rescale(dataset, source, frame, grids[n])
    before = [_rescale(frame, Grid(grid.dtype, frame.slope, frame.intercept)) for frame in frames]
    after = [_rescale(frame, grids[n]) for n, frame in zip(order, frames, strict=True)]
    if "ModalityLUTSequence" in source:  # its stored numbers are not a line away from the new ones
        dataset.pop("RealWorldValueMappingSequence", None)
    remap(dataset, [frame.index for frame in frames], before, after, grid)
    if grid.dtype.itemsize <= 2:
        vr = "SS" if signed else "US"
        for keyword, end in zip(
            ("SmallestImagePixelValue", "LargestImagePixelValue"), arrays.limits(stored), strict=True
        ):
            dataset.add_new(keyword, vr, int(end))
        ends = padding_range(source)
        if ends is not None:
            values = [end * frames[0].slope + frames[0].intercept for end in ends]
            if grid.fits(min(values), max(values)):
                dataset.add_new("PixelPaddingValue", vr, int(grid.encode(np.array(values[0]))))
                if ends[0] != ends[1]:
                    dataset.add_new("PixelPaddingRangeLimit", vr, int(grid.encode(np.array(values[1]))))
    if mosaic is not None:
        stored = mosaic.join(stored, grid.encode(np.zeros(())))
    dataset.add_new("PixelData", "OB" if grid.dtype.itemsize == 1 else "OW", _little_endian(stored))


def _little_endian(stored: NDArray[Any]) -> bytes | BinaryIO:
    """The bytes of pixels, an even number; those of an array in a file as a file, which pydicom writes in pieces."""
    dtype = stored.dtype.newbyteorder("<")
    file = arrays.scratch_file() if arrays.in_file(stored) else None
    if file is None:
        data = stored.astype(dtype).tobytes()
        return data + b"\0" * (len(data) % 2)
    for plane in arrays.planes(stored):
        file.write(plane.astype(dtype).tobytes())
    file.write(b"\0" * (stored.nbytes % 2))
    file.seek(0)
    return file


def set_float_pixels(dataset: Dataset, planes: NDArray[Any], order: Iterable[int], dtype: np.dtype[Any]) -> None:
    """Set the pixel data of an image that stores floats (a Parametric Map): no rescale, no integers' attributes."""
    numbers = list(order)
    stored = arrays.empty((len(numbers), *planes.shape[1:]), dtype)
    for out, n in zip(arrays.planes(stored), numbers, strict=True):
        out[...] = planes[n]
        arrays.release(planes)
    keyword, vr = ("FloatPixelData", "OF") if dtype.itemsize == 4 else ("DoubleFloatPixelData", "OD")
    dataset.add_new(keyword, vr, _little_endian(stored))


def _rescale(frame: Frame, grid: Grid) -> Rescale:
    """(slope, intercept) of the header for a plane's grid; brightness turned round for reading is turned back."""
    if frame.mirror is None:
        return grid.slope, grid.intercept
    return -grid.slope, frame.mirror - grid.intercept


def _set_rescale(dataset: Dataset, source: Dataset, frame: Frame, grid: Grid) -> None:
    """Write slope and intercept where the source has them (data set, shared or per-frame group), or needs them."""
    shared, per_frame = dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")
    groups = [per_frame[frame.index]] if per_frame else []
    groups += [shared[0]] if shared else []
    slope, intercept = _rescale(frame, grid)
    plain = (slope, intercept) == (1.0, 0.0)
    holder = dataset
    if groups:
        owner = next((g for g in groups if g.get("PixelValueTransformationSequence")), None)
        if owner is None:
            if plain:
                return
            owner = groups[-1]
            owner.PixelValueTransformationSequence = Sequence([item_of(RescaleType="US")])
        holder = owner.PixelValueTransformationSequence[0]
    elif plain and "RescaleSlope" not in source and not source.get("ModalityLUTSequence"):
        return
    holder.RescaleSlope = format_number_as_ds(slope)
    holder.RescaleIntercept = format_number_as_ds(intercept)
    if source.get("ModalityLUTSequence"):
        holder.RescaleType = text(source.ModalityLUTSequence[0], "ModalityLUTType") or "US"
