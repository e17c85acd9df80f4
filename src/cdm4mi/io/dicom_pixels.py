"""Stored pixels of one DICOM instance, after what its header claims was checked against what the file holds."""

from __future__ import annotations

import copy
import warnings

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from cdm4mi.errors import UserError
from cdm4mi.io.dicom_scan import Instance
from cdm4mi.io.volume import check_memory

# A constant image gains this much at most with any of the codecs; real ones gain 3 to 30.
_MAX_GAIN = 5000


def decode(instance: Instance, frames: int) -> np.ndarray:
    """Stored pixels (frames, rows, columns) in the type of the header (float for float pixel data)."""
    dataset, name = instance.dataset, instance.name
    tail = instance.pixel_elements()
    element = next((tail[tag] for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009) if tag in tail), None)
    if element is None or not element.value:
        raise UserError(f"{name}: has no pixel data, expected an image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    bits = {0x7FE00008: 32, 0x7FE00009: 64}.get(int(element.tag), int(dataset.get("BitsAllocated") or 0))
    if bits not in (1, 8, 16, 32, 64):
        raise UserError(f"{name}: BitsAllocated is {bits}, expected 1, 8, 16 or 32")
    compressed = syntax is not None and syntax.is_compressed and not syntax.is_deflated
    stored = len(element.value) * 8 // bits
    check_memory(name, (frames, rows, columns), stored, _MAX_GAIN if compressed else 1)
    whole = _with_pixels(dataset, tail, syntax)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = pixel_array(whole, raw=True)
    except MemoryError:
        raise UserError(f"{name}: the image does not fit into memory") from None
    except Exception as error:
        raise UserError(f"{name}: the pixel data cannot be decoded ({_one_line(error)})") from None
    array = array.reshape(-1, *array.shape[-2:]) if array.ndim != 2 else array[None]
    if array.shape != (frames, rows, columns):
        raise UserError(f"{name}: decodes to {array.shape}, expected {(frames, rows, columns)} as its header says")
    return array


def _with_pixels(dataset: Dataset, tail: Dataset, syntax: str | None) -> Dataset:
    """A small data set with all that decoding asks for."""
    whole = Dataset()
    for keyword in (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
    ):
        if keyword in dataset:
            setattr(whole, keyword, copy.copy(dataset.get(keyword)))
    defaults = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 0}
    for keyword, value in defaults.items():
        if whole.get(keyword) is None:
            setattr(whole, keyword, value)
    if whole.get("BitsStored") is None and whole.get("BitsAllocated"):
        whole.BitsStored = whole.BitsAllocated
    for element in tail:
        if element.tag.group == 0x7FE0:
            whole[element.tag] = element
    whole.file_meta = copy.copy(dataset.file_meta) if hasattr(dataset, "file_meta") else Dataset()
    if syntax is None:
        implicit, little = dataset.original_encoding
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

        guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        whole.file_meta.TransferSyntaxUID = guess
    whole.set_original_encoding(*dataset.original_encoding)
    return whole


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
