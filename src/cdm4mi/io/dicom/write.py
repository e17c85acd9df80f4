"""A Volume as a derived DICOM series: one instance for each source instance, as DICOM PS3.3 and PS3.4 ask."""

from __future__ import annotations

import copy
import datetime
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file, replacing_folder
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.deidentify import deidentify, new_uid
from cdm4mi.io.dicom.frames import Frame, padding_range
from cdm4mi.io.dicom.read import DicomHeader
from cdm4mi.io.dicom.real_world import Rescale, remap
from cdm4mi.io.dicom.values import text, where, whole
from cdm4mi.io.quantise import Grid, fine_enough, refine
from cdm4mi.io.volume import Volume

NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE"
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_2",
}
# What described the source's pixel data or file and no longer holds.
_STALE = [
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelDataProviderURL",
    "IconImageSequence",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "DataSetTrailingPadding",
]


def derived_datasets(
    volume: Volume, header: DicomHeader, derivation: Derivation | None, deidentified: bool = False
) -> list[Dataset]:
    """One new data set for each source data set, in the order of the slices. ``volume`` lies on the header's grid."""
    planes = volume.slices()
    if len(planes) != len(header.frames):
        raise UserError(
            f"the volume has {len(planes)} slices, its DICOM template {len(header.frames)}, expected as many"
        )
    if not np.isfinite(planes).all():
        raise UserError("the volume holds values that are not finite, which DICOM cannot store")
    if derivation is None:
        # Without a model and settings the values themselves tell one derived series from another.
        digest = hashlib.sha256(np.ascontiguousarray(planes).tobytes()).hexdigest()
        derivation = Derivation(settings={"values": digest})
    floating = header.dtype.kind == "f"
    grids = [] if floating else _grids(planes, header)
    by_instance: dict[int, list[int]] = {}
    for n, frame in enumerate(header.frames):
        by_instance.setdefault(frame.instance, []).append(n)
    now = datetime.datetime.now()
    written = []
    for instance, own in by_instance.items():
        own = sorted(own, key=lambda n: header.frames[n].index)
        source = header.datasets[instance]
        if not text(source, "SOPClassUID") or not text(source, "SOPInstanceUID"):
            raise UserError("the source has no SOPClassUID or SOPInstanceUID, which a derived image needs")
        try:
            dataset = _copy(source)
            if deidentified:
                deidentify(dataset)
            if floating:
                _set_float_pixels(dataset, planes[own], header.dtype)
            else:
                _set_pixels(dataset, planes, own, grids, header)
            _set_identity(dataset, source, derivation, None if deidentified else now)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"a header element of the source is malformed{where(error)}") from None
        written.append(dataset)
    return written


def write_dicom(
    volume: Volume, path: Path, header: DicomHeader, derivation: Derivation | None, deidentified: bool = False
) -> None:
    """Write the derived series: a folder of instances named by slice, or one file where ``path`` ends in .dcm.

    ``deidentified`` applies the Basic Profile (``deidentify``) to each data set.
    """
    datasets = derived_datasets(volume, header, derivation, deidentified)
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        with replacing_file(path) as temporary:
            save(datasets[0], temporary)
        return
    with replacing_folder(path) as folder:
        for number, dataset in enumerate(datasets, 1):
            save(dataset, folder / f"{number:04d}.dcm")


def save(dataset: Dataset, path: Path) -> None:
    """Write one data set as a DICOM file."""
    try:
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"a header element of the source cannot be written{where(error)}") from None


def _copy(source: Dataset) -> Dataset:
    dataset = copy.deepcopy(source)
    for keyword in _STALE:
        if keyword in dataset:
            delattr(dataset, keyword)
    # Overlays that live in unused bits of the old pixels are gone with them.
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0010) in dataset and (group, 0x3000) not in dataset:
            for tag in [element.tag for element in dataset if element.tag.group == group]:
                del dataset[tag]
    if source.original_encoding[1] is False:
        _swap_words(dataset)
    return dataset


def _swap_words(dataset: Dataset) -> None:
    """Big endian to little endian for elements that pydicom keeps as raw bytes."""
    widths = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
    for element in dataset.iterall():
        width = widths.get(element.VR)
        if width and isinstance(element.value, bytes) and len(element.value) % width == 0:
            element.value = np.frombuffer(element.value, dtype=f">u{width}").astype(f"<u{width}").tobytes()


def _ds(value: float) -> float:
    """The number as DICOM will hold it in its 16 characters."""
    return float(format_number_as_ds(float(value)))


def _grids(planes: NDArray[Any], header: DicomHeader) -> list[Grid]:
    """The stored type of each plane: one for the whole series unless the source rescales each slice in its own way."""
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
            if candidate.fits(float(values.min()), float(values.max())) and fine_enough(candidate, values, 1.0):
                return candidate
    if dataset.get("Modality") != "PT":  # PET demands an intercept of 0
        low = float(values.min())
        steps = np.floor((low - kept.intercept) / kept.slope) if kept.slope > 0 else 0.0
        candidates.append(Grid(np.dtype(f"u{width}"), kept.slope, _ds(kept.intercept + steps * kept.slope)))
    return refine(values, candidates, _ds) or _fallback(values, candidates[0].dtype, frame)


def _fallback(values: NDArray[Any], dtype: np.dtype[Any], frame: Frame) -> Grid:
    """The finest slope with which the type holds the values at the source's intercept."""
    reach = float(np.abs(values - frame.intercept).max()) or 1.0
    low = float((values - frame.intercept).min())
    if low < 0 and dtype.kind == "u":
        dtype = np.dtype(f"i{dtype.itemsize}")
    top = (1 << (dtype.itemsize * 8 - (dtype.kind == "i"))) - 1
    return Grid(dtype, _ds(reach / top * (1 + 1e-9) + 1e-300), _ds(frame.intercept))


def _set_pixels(dataset: Dataset, planes: NDArray[Any], own: list[int], grids: list[Grid], header: DicomHeader) -> None:
    """Pixel data and every attribute that depends on them."""
    frames = [header.frames[n] for n in own]
    source = header.datasets[frames[0].instance]
    stored = np.stack([grids[n].encode(planes[n]) for n in own])
    grid = grids[own[0]]
    signed = grid.dtype.kind == "i"
    dataset.SamplesPerPixel = 1
    if not dataset.get("PhotometricInterpretation"):
        dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = grid.dtype.itemsize * 8
    dataset.BitsStored = grid.bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    for n, frame in zip(own, frames, strict=True):
        _set_rescale(dataset, source, frame, grids[n])
    before = [_rescale(frame, Grid(grid.dtype, frame.slope, frame.intercept)) for frame in frames]
    after = [_rescale(frame, grids[n]) for n, frame in zip(own, frames, strict=True)]
    if "ModalityLUTSequence" in source:  # its stored numbers are not a line away from the new ones
        dataset.pop("RealWorldValueMappingSequence", None)
    remap(dataset, [frame.index for frame in frames], before, after, grid)
    if grid.dtype.itemsize <= 2:
        vr = "SS" if signed else "US"
        dataset.add_new("SmallestImagePixelValue", vr, int(stored.min()))
        dataset.add_new("LargestImagePixelValue", vr, int(stored.max()))
        ends = padding_range(source)
        if ends is not None:
            values = [end * frames[0].slope + frames[0].intercept for end in ends]
            if grid.fits(min(values), max(values)):
                dataset.add_new("PixelPaddingValue", vr, int(grid.encode(np.array(values[0]))))
                if ends[0] != ends[1]:
                    dataset.add_new("PixelPaddingRangeLimit", vr, int(grid.encode(np.array(values[1]))))
    data = stored.astype(grid.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if grid.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))


def _set_float_pixels(dataset: Dataset, planes: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Pixel data of an image whose source stores floats (a Parametric Map): no rescale, no integers' attributes."""
    keyword, vr = ("FloatPixelData", "OF") if dtype.itemsize == 4 else ("DoubleFloatPixelData", "OD")
    dataset.add_new(keyword, vr, planes.astype(dtype.newbyteorder("<")).tobytes())


def _rescale(frame: Frame, grid: Grid) -> Rescale:
    """(slope, intercept) of the header for a plane's grid; brightness turned round for reading is turned back."""
    if frame.mirror is None:
        return grid.slope, grid.intercept
    return -grid.slope, frame.mirror - grid.intercept


def _set_rescale(dataset: Dataset, source: Dataset, frame: Frame, grid: Grid) -> None:
    """Slope and intercept where the source had them (data set, shared or per-frame group), or where they are needed."""
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
            item = Dataset()
            item.RescaleType = "US"
            owner.PixelValueTransformationSequence = Sequence([item])
        holder = owner.PixelValueTransformationSequence[0]
    elif plain and "RescaleSlope" not in source and not source.get("ModalityLUTSequence"):
        return
    holder.RescaleSlope = format_number_as_ds(slope)
    holder.RescaleIntercept = format_number_as_ds(intercept)
    if source.get("ModalityLUTSequence"):
        holder.RescaleType = text(source.ModalityLUTSequence[0], "ModalityLUTType") or "US"


def _set_identity(dataset: Dataset, source: Dataset, derivation: Derivation, now: datetime.datetime | None) -> None:
    """Who made this instance from what: new UIDs, image type, derivation, source, equipment.

    ``now`` is None for a de-identified data set, which gets no times, and UIDs of the de-identified study.
    """
    public = new_uid if now is None else str
    source_uid, source_series = text(source, "SOPInstanceUID"), text(source, "SeriesInstanceUID")
    dataset.SOPInstanceUID = public(derivation.uid("instance", source_uid))
    dataset.SeriesInstanceUID = public(derivation.uid("series", source_series))
    dataset.SeriesNumber = derived_series_number(source, dataset.SeriesInstanceUID)
    label = f"{derivation.label} {NOT_FOR_CLINICAL_USE}"
    dataset.SeriesDescription = f"{text(dataset, 'SeriesDescription')[: 63 - len(label)]} {label}".strip()
    if now is not None:
        dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.get("SOPClassUID"), public(source_uid)
    reference.PurposeOfReferenceCodeSequence = Sequence(
        [_code("121322", "DCM", "Source image for image processing operation")]
    )
    enhanced = "SharedFunctionalGroupsSequence" in source
    _set_image_type(dataset, enhanced)
    if enhanced:
        _add_derivation_group(dataset, derivation, reference, public(source_series))
    else:
        dataset.DerivationDescription = _describe(derivation)
        dataset.DerivationCodeSequence = Sequence([_derivation_code(derivation)])
        dataset.SourceImageSequence = Sequence([reference])
    _add_equipment(dataset, derivation, now)
    _keep_lossy(dataset, source)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = source.get("SOPClassUID")
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    implicit, little = source.original_encoding
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit and little else ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta = meta


def derived_series_number(source: Dataset, uid: str) -> int:
    """1000 times the source's number plus 1 to 999 from the new UID, so that two derivations of a series differ."""
    try:
        number = abs(int(source.get("SeriesNumber") or 0)) % 1_000_000
    except (TypeError, ValueError):
        number = 0
    return number * 1000 + 1 + int(uid.rsplit(".", 1)[1]) % 999


def _describe(derivation: Derivation) -> str:
    weights = f", weights sha256 {derivation.model_hash}" if derivation.model_hash else ""
    said = f"{derivation.description} ({derivation.software} {derivation.version}{weights}). {NOT_FOR_CLINICAL_USE}."
    return said[:1024]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _derivation_code(derivation: Derivation) -> Dataset:
    value, meaning = derivation.code
    return _code(value, "99CDM4MI", meaning)


def _set_image_type(dataset: Dataset, enhanced: bool) -> None:
    """DERIVED, SECONDARY, then what was there; an enhanced image stays PRIMARY (PS3.3 C.8.16.1) and says FILTERED."""

    def derived(image_type: str | Iterable[object] | None) -> list[str]:
        values = [image_type] if isinstance(image_type, str) else [str(v) for v in image_type or []]
        if not enhanced:
            # Value 2 of a PET image is PRIMARY in any case (PS3.3 C.8.9.4.1.3).
            return ["DERIVED", "PRIMARY" if text(dataset, "Modality") == "PT" else "SECONDARY", *values[2:]]
        values = (values + ["PRIMARY", "VOLUME", "NONE"][max(0, len(values) - 1) :])[:4]
        return ["DERIVED", *values[1:3], "FILTERED" if values[3] == "NONE" else values[3]]

    dataset.ImageType = derived(dataset.get("ImageType"))
    if not enhanced:
        return
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(sequence) or []:
            for element in group:
                if element.VR == "SQ" and len(element.value) and "FrameType" in element.value[0]:
                    element.value[0].FrameType = derived(element.value[0].FrameType)


def _add_derivation_group(dataset: Dataset, derivation: Derivation, reference: Dataset, source_series: str) -> None:
    """The derivation of an enhanced image: in the per-frame groups where the source has some, else in the shared."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    own = [group for group in per_frame if "DerivationImageSequence" in group]
    for group in own or [dataset.SharedFunctionalGroupsSequence[0]]:
        item = Dataset()
        item.DerivationDescription = _describe(derivation)
        item.DerivationCodeSequence = Sequence([_derivation_code(derivation)])
        item.SourceImageSequence = Sequence([copy.deepcopy(reference)])
        group.DerivationImageSequence = Sequence([item])
    evidence = Dataset()
    evidence.StudyInstanceUID = dataset.get("StudyInstanceUID")
    series, instance = Dataset(), Dataset()
    series.SeriesInstanceUID = source_series
    instance.ReferencedSOPClassUID = reference.ReferencedSOPClassUID
    instance.ReferencedSOPInstanceUID = reference.ReferencedSOPInstanceUID
    series.ReferencedSOPSequence = Sequence([instance])
    evidence.ReferencedSeriesSequence = Sequence([series])
    dataset.SourceImageEvidenceSequence = Sequence([evidence])


def _add_equipment(dataset: Dataset, derivation: Derivation, now: datetime.datetime | None) -> None:
    item = Dataset()
    item.Manufacturer = item.ManufacturerModelName = derivation.software
    item.SoftwareVersions = [derivation.version] + ([derivation.model_hash[:64]] if derivation.model_hash else [])
    if now is not None:
        item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = _describe(derivation)
    item.PurposeOfReferenceCodeSequence = Sequence([_code("109103", "DCM", "Modifying Equipment")])
    dataset.ContributingEquipmentSequence = Sequence([*(dataset.get("ContributingEquipmentSequence") or []), item])


def _keep_lossy(dataset: Dataset, source: Dataset) -> None:
    """What was once compressed with loss stays so marked, also where only the transfer syntax said it."""
    syntax = str(getattr(source, "file_meta", Dataset()).get("TransferSyntaxUID", ""))
    if syntax in _LOSSY and text(source, "LossyImageCompression") != "01":
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = _LOSSY[syntax]
