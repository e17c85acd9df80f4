"""A map of floats beside a scan (the uncertainty of a restoration): DICOM Parametric Map, or another format."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io import atomic, formats
from cdm4mi.io.deidentify import deidentify as apply_profile
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom_read import DicomHeader
from cdm4mi.io.dicom_values import text
from cdm4mi.io.dicom_write import NOT_FOR_CLINICAL_USE, derived_series_number, save
from cdm4mi.io.quiet import quiet
from cdm4mi.io.sniff import ENDINGS, ending
from cdm4mi.io.volume import Volume

_TYPE_2 = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip
_UNITS = {
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "BQML": ("Bq/ml", "Becquerel per millilitre"),
}


def write_map(
    volume: Volume,
    path: str | Path,
    meaning: str,
    like: Volume | None = None,
    *,
    derivation: Derivation | None = None,
    deidentify: bool = False,
) -> None:
    """Write a map of float32 values on the grid of the scan that ``volume`` (or ``like``) was read from.

    ``meaning`` says what the values are, such as "Standard deviation". A DICOM output (.dcm) is one Parametric Map
    (PS3.3 A.75) that refers to its source images; any other ending gives float32 in that format.
    """
    path = Path(path)
    check_map_target(volume, path, like)
    if ENDINGS.get(ending(path)) != "dicom":
        formats.write(volume, path, like, derivation=derivation, dtype=np.dtype(np.float32), deidentify=deidentify)
        return
    if not np.isfinite(volume.array).all():
        raise UserError(f"{path}: the map holds values that are not finite, which DICOM cannot store")
    derivation = replace(derivation or volume.derivation or Derivation(), label=meaning.lower())
    volume = formats.placed(volume, like)
    assert volume.source is not None
    dataset = _parametric_map(volume, volume.source.header, meaning, derivation)
    if deidentify:
        apply_profile(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesDescription = f"{meaning} {NOT_FOR_CLINICAL_USE}"[:64]
    with atomic.replacing_file(path) as temporary:
        save(dataset, temporary)


def check_map_target(volume: Volume, path: str | Path, like: Volume | None = None) -> None:
    """Raise the UserError in which ``write_map`` would end, whatever the values; for a check before long work."""
    path = Path(path)
    source = (like or volume).source
    if ENDINGS.get(ending(path)) != "dicom":
        formats.check_target(volume, path, like)
        return
    if source is None or source.kind != "dicom":
        raise UserError(
            f"{path}: a Parametric Map refers to DICOM images, found {source.kind if source else 'none'}, expected a "
            "DICOM source, --like SERIES, or another format"
        )
    atomic.refuse_inputs(path, [p for s in (source, volume.source) if s is not None for p in s.paths])
    if volume.array.ndim == 4:
        raise UserError(f"{path}: a Parametric Map holds one value at each place, expected no time points")
    volume = formats.placed(volume, like)
    assert volume.source is not None
    header = volume.source.header
    # Headers that do not suffice show on the first image already.
    frames = header.frames if len(header.datasets) == 1 else header.frames[:1]
    empty = replace(volume, array=np.zeros((len(frames), *volume.shape[-2:]), np.float32), padding=None)
    _parametric_map(empty, replace(header, frames=frames), "Map", Derivation())


def _parametric_map(volume: Volume, header: DicomHeader, meaning: str, derivation: Derivation) -> Dataset:
    import highdicom
    from pydicom.sr.coding import Code

    frames = header.frames
    first = header.datasets[frames[0].instance]
    if len(header.datasets) == 1 and len(frames) > 1:
        order = np.argsort([frame.index for frame in frames])
        sources, values = [_complete(first)], volume.array[order]
    else:
        sources, values = [_complete(header.datasets[frame.instance]) for frame in frames], volume.array
    code, unit = _UNITS.get(volume.units or "", ("1", "no units"))
    low, high = float(values.min()), float(values.max())
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=meaning.upper()[:16],
        lut_explanation=meaning[:64],
        unit=Code(code, "UCUM", unit),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
    )
    try:
        with quiet():
            dataset = highdicom.pm.ParametricMap(
                source_images=sources,
                pixel_array=values,
                series_instance_uid=derivation.uid("series", text(first, "SeriesInstanceUID")),
                series_number=derived_series_number(first, derivation.uid("series", text(first, "SeriesInstanceUID"))),
                sop_instance_uid=derivation.uid("instance", text(first, "SOPInstanceUID")),
                instance_number=1,
                manufacturer=derivation.software,
                manufacturer_model_name=derivation.software,
                software_versions=derivation.version,
                device_serial_number=derivation.model_hash[:64] or "none",
                contains_recognizable_visual_features=False,
                real_world_value_mappings=[mapping],
                window_center=(low + high) / 2,
                window_width=max(high - low, 1e-6),
                content_description=meaning[:64],
                content_label="UNCERTAINTY",
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Only these messages name an attribute and no value.
        said = f" ({error})" if isinstance(error, AttributeError) else ""
        raise UserError(f"the headers of the source do not suffice for a Parametric Map{said}") from None
    dataset.SeriesDescription = f"{meaning} {NOT_FOR_CLINICAL_USE}"[:64]
    return dataset


def _complete(source: Dataset) -> Dataset:
    """A copy with the attributes that must be there, though empty, which de-identified sources often lack."""
    dataset = copy.deepcopy(source)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    return dataset
