"""Stored pixels of one DICOM instance, after what its header claims was checked against what the file holds."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGTransferSyntaxes

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import HELD, check_memory, converted, empty, release
from cdm4mi.io.dicom.codestream import coded_sizes
from cdm4mi.io.dicom.frames import frame_count
from cdm4mi.io.dicom.instance import FLOAT_BITS, PIXEL_DATA, Instance
from cdm4mi.io.dicom.values import number, text, whole

# Where GDCM is installed, pydicom prefers it, but it ends the whole process (std::terminate) for some damaged files.
_DECODERS = ("pydicom", "pylibjpeg", "pyjpegls")
# A constant image gains this much at most with any of the codecs; real ones gain 3 to 30.
_MAX_GAIN = 5000


def decode(instance: Instance, frames: int) -> NDArray[Any]:
    """Stored pixels (frames, rows, columns) in the type of the header (float for float pixel data)."""
    dataset, name = instance.dataset, instance.name
    shape = (frames, whole(dataset, "Rows"), whole(dataset, "Columns"))
    compressed = instance.syntax.is_encapsulated
    kind = "i" if whole(dataset, "PixelRepresentation") else "u"
    order = "<" if instance.syntax.is_little_endian else ">"
    width = whole(dataset, "BitsAllocated") // 8
    if frames > 1 and not compressed and (width in (2, 4, 8) or (width == 1 and instance.syntax.is_little_endian)):
        stored = instance.native_pixels(np.dtype(f"{order}{kind}{width}"), shape)
        if stored is not None:
            return stored
    if frames > 1 and compressed:
        with instance.compressed_pixels() as opened:
            if opened is not None:
                check_claims(instance, frames, instance.size - opened.tell())
                return _decoded(instance, shape, PIXEL_DATA, opened)
    tag, data = instance.pixel_data()
    bits = FLOAT_BITS.get(tag) or whole(dataset, "BitsAllocated")
    if not data:
        raise UserError(f"{name}: has no pixel data, expected an image")
    check_claims(instance, frames, len(data), bits)
    if tag == PIXEL_DATA and not compressed and (bits == 16 or (bits == 8 and instance.syntax.is_little_endian)):
        count = shape[0] * shape[1] * shape[2]
        return np.frombuffer(data, f"{order}{kind}{bits // 8}", count).reshape(shape)
    return _decoded(instance, shape, tag, io.BytesIO(data) if compressed else data)


def _decoded(instance: Instance, shape: tuple[int, ...], tag: int, data: bytes | BinaryIO) -> NDArray[Any]:
    """Pixels that a library decodes; data: their value, or a file where it begins, if they are compressed."""
    name = instance.name
    if not isinstance(data, bytes):
        begin = data.tell()
        for rows, columns in coded_sizes(data):
            if (rows, columns) != shape[1:]:
                expected = f"{shape[1]} x {shape[2]} as the header says"
                raise UserError(f"{name}: the compressed image is {rows} x {columns}, expected {expected}")
        data.seek(begin)
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


def check_described(instance: Instance) -> None:
    """Refuse a header that does not say how its integers are stored: how wide, with or without a sign."""
    for keyword, wanted in (("BitsAllocated", "8, 16 or 32"), ("PixelRepresentation", "0 (unsigned) or 1 (signed)")):
        if number(instance.dataset, keyword) is None and not instance.holds_floats():
            raise UserError(f"{instance.name}: {keyword} is missing, expected {wanted}")


def check_claims(instance: Instance, frames: int, size: int, bits: int = 0) -> None:
    """Refuse a header that claims more pixels than ``size`` bytes can hold; ``bits`` of each: BitsAllocated."""
    dataset = instance.dataset
    bits = bits or whole(dataset, "BitsAllocated", 16)
    if bits not in (1, 8, 16, 32, 64):
        raise UserError(f"{instance.name}: BitsAllocated is {bits}, expected 1, 8, 16 or 32")
    shape = (frames, whole(dataset, "Rows"), whole(dataset, "Columns"))
    check_memory(instance.name, shape, size * 8 // bits, _MAX_GAIN if instance.syntax.is_encapsulated else 1)


def _decode_with_pydicom(instance: Instance, tag: int, data: bytes | BinaryIO) -> NDArray[Any]:
    header = instance.dataset
    bits = FLOAT_BITS.get(tag) or whole(header, "BitsAllocated")
    decoder = get_decoder(instance.syntax)
    plugin = next((name for name in _DECODERS if name in decoder.available_plugins), "")
    options: dict[str, Any] = {
        "samples_per_pixel": 1,
        "photometric_interpretation": text(header, "PhotometricInterpretation") or "MONOCHROME2",
        "rows": whole(header, "Rows"),
        "columns": whole(header, "Columns"),
        "number_of_frames": frame_count(header),
        "bits_allocated": bits,
        "bits_stored": whole(header, "BitsStored", bits),
        "pixel_representation": whole(header, "PixelRepresentation"),
        "pixel_keyword": keyword_for_tag(tag),
        "pixel_vr": instance.pixel_vr or "OW",
        "extended_offsets": _offsets(header),
    }
    found = decoder.iter_array(data, raw=True, decoding_plugin=plugin, **options)
    return _stacked((frame for frame, _ in found), frame_count(header))


def _stacked(frames: Iterable[NDArray[Any]], count: int) -> NDArray[Any]:
    """Frames one after the other as one array of ``count``; fewer as they are."""
    found = islice(frames, count)
    first = next(found)
    stored = empty((count, *first.shape), first.dtype)
    number = 0
    for number, frame in enumerate(chain([first], found), 1):
        stored[number - 1] = frame
        if number * frame.nbytes % HELD < frame.nbytes:
            release(stored)
    return stored[:number]


def _offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    """Where the frames of encapsulated pixel data begin, and their lengths, for data of more than 4 GB."""
    if "ExtendedOffsetTable" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _decode_jpeg(instance: Instance, tag: int, data: bytes | BinaryIO) -> NDArray[Any]:
    """JPEG of 8, 12 or 16 bits, with or without loss (ISO 10918), by libjpeg-turbo."""
    import imagecodecs

    dataset = instance.dataset
    frames = generate_frames(data, number_of_frames=frame_count(dataset), extended_offsets=_offsets(dataset))
    stored = _stacked((imagecodecs.jpeg8_decode(frame) for frame in frames), frame_count(dataset))
    width = whole(dataset, "BitsAllocated") // 8
    unsigned = converted(stored, f"u{width}", lambda plane: plane.astype(f"u{width}", casting="safe"))
    return unsigned.view(f"i{width}") if whole(dataset, "PixelRepresentation") else unsigned
