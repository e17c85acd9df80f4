"""Stored pixels of one DICOM instance, after what its header claims was checked against what the file holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import JPEGTransferSyntaxes

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.codestream import coded_sizes
from cdm4mi.io.dicom.scan import Instance
from cdm4mi.io.dicom.values import text, whole
from cdm4mi.io.volume import check_memory

_PIXEL_DATA = 0x7FE00010
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
# Where GDCM is installed, pydicom prefers it, but it ends the whole process (std::terminate) for some damaged files.
_DECODERS = ("pydicom", "pylibjpeg", "pyjpegls")
# A constant image gains this much at most with any of the codecs; real ones gain 3 to 30.
_MAX_GAIN = 5000


def decode(instance: Instance, frames: int) -> NDArray[Any]:
    """Stored pixels (frames, rows, columns) in the type of the header (float for float pixel data)."""
    dataset, name = instance.dataset, instance.name
    shape = (frames, whole(dataset, "Rows"), whole(dataset, "Columns"))
    tag, data = instance.pixel_data()
    bits = _FLOAT_BITS.get(tag) or whole(dataset, "BitsAllocated")
    if bits not in (1, 8, 16, 32, 64):
        raise UserError(f"{name}: BitsAllocated is {bits}, expected 1, 8, 16 or 32")
    if not data:
        raise UserError(f"{name}: has no pixel data, expected an image")
    compressed = instance.syntax.is_encapsulated
    check_memory(name, shape, len(data) * 8 // bits, _MAX_GAIN if compressed else 1)
    if tag == _PIXEL_DATA and not compressed and (bits == 16 or (bits == 8 and instance.syntax.is_little_endian)):
        kind = "i" if whole(dataset, "PixelRepresentation") else "u"
        order = "<" if instance.syntax.is_little_endian else ">"
        count = shape[0] * shape[1] * shape[2]
        return np.frombuffer(data, f"{order}{kind}{bits // 8}", count).reshape(shape)
    for size in coded_sizes(data) if compressed else ():
        if size != shape[1:]:
            said = f"{size[0]} x {size[1]}"
            raise UserError(
                f"{name}: the compressed image is {said}, expected {shape[1]} x {shape[2]} as the header says"
            )
    try:
        decode_frames = _decode_jpeg if instance.syntax in JPEGTransferSyntaxes else _decode_with_pydicom
        array = decode_frames(instance, tag, data)
    except MemoryError:
        raise UserError(f"{name}: the image does not fit into memory") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a decoder written in Rust ends with a panic, which is no Exception
        how = instance.syntax.name
        raise UserError(f"{name}: the pixel data ({how}) are damaged or of a kind no decoder here reads") from None
    array = array.reshape(-1, *array.shape[-2:])
    if array.shape != shape:
        raise UserError(f"{name}: decodes to {array.shape}, expected {shape} as its header says")
    return array


def _decode_with_pydicom(instance: Instance, tag: int, data: bytes) -> NDArray[Any]:
    source = instance.dataset
    dataset = Dataset()
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = text(source, "PhotometricInterpretation") or "MONOCHROME2"
    dataset.Rows, dataset.Columns = whole(source, "Rows"), whole(source, "Columns")
    dataset.NumberOfFrames = whole(source, "NumberOfFrames", 1)
    dataset.BitsAllocated = _FLOAT_BITS.get(tag) or whole(source, "BitsAllocated")
    dataset.BitsStored = whole(source, "BitsStored", dataset.BitsAllocated)
    dataset.HighBit = whole(source, "HighBit", dataset.BitsStored - 1)
    dataset.PixelRepresentation = whole(source, "PixelRepresentation")
    for keyword in _OFFSETS:
        if keyword in source:
            dataset[keyword] = source[keyword]
    vr = {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(tag, instance.pixel_vr or "OW")
    dataset.add_new(tag, vr, data)
    if instance.syntax.is_encapsulated:
        dataset[tag].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = instance.syntax
    available = get_decoder(instance.syntax).available_plugins
    plugin = next((name for name in _DECODERS if name in available), "")
    return pixel_array(dataset, raw=True, decoding_plugin=plugin)


def _decode_jpeg(instance: Instance, tag: int, data: bytes) -> NDArray[Any]:
    """JPEG of 8, 12 or 16 bits, with or without loss (ISO 10918), by libjpeg-turbo."""
    import imagecodecs

    dataset = instance.dataset
    count = max(1, whole(dataset, "NumberOfFrames", 1))
    offsets = tuple(dataset[keyword].value for keyword in _OFFSETS) if _OFFSETS[0] in dataset else None
    frames = generate_frames(data, number_of_frames=count, extended_offsets=offsets)
    stored = np.stack([imagecodecs.jpeg8_decode(frame) for frame in frames])
    width = whole(dataset, "BitsAllocated") // 8
    unsigned = stored.astype(f"u{width}", casting="safe")
    return unsigned.view(f"i{width}") if whole(dataset, "PixelRepresentation") else unsigned
