"""A Volume as a derived DICOM series: one instance for each source instance, as DICOM PS3.3 and PS3.4 ask."""

from __future__ import annotations

import copy
import datetime
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file, replacing_folder
from cdm4mi.io import arrays
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.deidentify import Deidentification
from cdm4mi.io.dicom.frames import only_frames
from cdm4mi.io.dicom.identity import set_identity
from cdm4mi.io.dicom.read import DicomHeader
from cdm4mi.io.dicom.stored_pixels import set_float_pixels, set_pixels, stored_types
from cdm4mi.io.dicom.values import text, where
from cdm4mi.io.volume import Volume

# What described the source's pixel data or file and no longer holds.
_STALE = (
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "PixelDataProviderURL", "IconImageSequence", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "DigitalSignaturesSequence", "MACParametersSequence", "DataSetTrailingPadding",
)  # fmt: skip


def derived_datasets(
    volume: Volume, header: DicomHeader, derivation: Derivation | None, deidentified: Deidentification | None = None
) -> Iterator[Dataset]:
    """Make the data sets of a derived series, one for each of the source. ``volume`` lies on the header's grid."""
    planes = volume.slices()
    if len(planes) != len(header.frames):
        raise UserError(
            f"the volume has {len(planes)} slices, its DICOM template {len(header.frames)}, expected as many"
        )
    if derivation is None:
        # Without a model and settings the values themselves tell one derived series from another.
        digest = hashlib.sha256()
        for plane in arrays.planes(planes):
            digest.update(plane.tobytes())
        derivation = Derivation(settings={"values": digest.hexdigest()})
    floating = header.dtype.kind == "f"
    grids = [] if floating else stored_types(planes, header)
    by_instance: dict[int, list[int]] = {}
    for n, frame in enumerate(header.frames):
        by_instance.setdefault(frame.instance, []).append(n)
    now = datetime.datetime.now()
    shared = Counter(text(source, "SOPInstanceUID") for source in header.datasets)
    for instance, its_planes in by_instance.items():
        order = sorted(its_planes, key=lambda n: header.frames[n].index)
        source = header.datasets[instance]
        try:
            dataset = _copy(source)
            only_frames(dataset, [header.frames[n].index for n in order])
            if deidentified:
                deidentified.apply(dataset)
            if floating:
                set_float_pixels(dataset, planes, order, header.dtype)
            else:
                set_pixels(dataset, planes, order, grids, header)
            number = instance if shared[text(source, "SOPInstanceUID")] > 1 else None
            public = deidentified.uid if deidentified else str
            set_identity(dataset, source, derivation, None if deidentified else now, number, public)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"a header element of the source is malformed{where(error)}") from None
        yield dataset
        arrays.release(planes)


def check_sources(header: DicomHeader) -> None:
    """Refuse a template whose images do not say what a derived image has to repeat or refer to."""
    for dataset, name in zip(header.datasets, header.names, strict=True):
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not text(dataset, keyword):
                raise UserError(f"{name}: {keyword} is missing, expected one to write DICOM (or another format, NIfTI)")


def write_dicom(
    volume: Volume,
    path: Path,
    header: DicomHeader,
    derivation: Derivation | None,
    deidentified: Deidentification | None = None,
) -> None:
    """Write the derived series: a folder of instances named by slice, or one file where ``path`` ends in .dcm.

    ``deidentified``: how the Basic Profile is applied to each data set; None: it is not.
    """
    datasets = derived_datasets(volume, header, derivation, deidentified)
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        with replacing_file(path) as temporary:
            save(next(datasets), temporary)
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
