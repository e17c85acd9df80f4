"""A map of floats (the uncertainty of a restoration) as a DICOM Parametric Map (PS3.3 A.75)."""

from __future__ import annotations

import copy

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import limits
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.frames import only_frames
from cdm4mi.io.dicom.identity import NOT_FOR_CLINICAL_USE, derived_series_number
from cdm4mi.io.dicom.mosaic import mosaic_of
from cdm4mi.io.dicom.read import DicomHeader
from cdm4mi.io.dicom.stored_pixels import set_float_pixels
from cdm4mi.io.dicom.values import text
from cdm4mi.io.quiet import quiet
from cdm4mi.io.volume import Volume

_TYPE_2 = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip
UNITS = {
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "BQML": ("Bq/ml", "Becquerel per millilitre"),
}


def parametric_map(volume: Volume, header: DicomHeader, meaning: str, derivation: Derivation) -> Dataset:
    """The data set that holds the values of ``volume``, a plane for each frame of ``header``, and refers to its images.

    meaning: what the values are, "Standard deviation", say. Raises UserError where the source's headers do not suffice.
    """
    frames = header.frames
    first = header.datasets[frames[0].instance]
    if mosaic_of(first) is not None:
        raise UserError("the source is a mosaic, and a Parametric Map refers to planes, expected another format")
    order = np.arange(len(frames))
    if len(header.datasets) == 1 and len(frames) > 1:
        order = np.argsort([frame.index for frame in frames])
        sources = [_complete(first)]
        only_frames(sources[0], [frames[n].index for n in order])
    else:
        sources = [_complete(header.datasets[frame.instance]) for frame in frames]
    # highdicom holds all frames in memory, in an order of its own: it is given one pixel of each, its number.
    for source in sources:
        source.Rows = source.Columns = 1
    code, unit = UNITS.get(volume.units or "", ("1", "no units"))
    low, high = limits(volume.array)
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
                pixel_array=order.astype(np.float32)[:, None, None],
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
        reason = f" ({error})" if isinstance(error, AttributeError) else ""
        raise UserError(f"the headers of the source do not suffice for a Parametric Map{reason}") from None
    order = np.frombuffer(dataset.FloatPixelData, "<f4").astype(int)
    dataset.Rows, dataset.Columns = volume.shape[-2:]
    set_float_pixels(dataset, volume.array, order.tolist(), np.dtype(np.float32))
    dataset.SeriesDescription = series_description(meaning)
    return dataset


def series_description(meaning: str) -> str:
    """SeriesDescription of a map: what it shows, and that it is not for clinical use."""
    return f"{meaning} {NOT_FOR_CLINICAL_USE}"[:64]


def _complete(source: Dataset) -> Dataset:
    """A copy with the attributes that must be there, though empty, which de-identified sources often lack."""
    dataset = copy.deepcopy(source)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    return dataset
