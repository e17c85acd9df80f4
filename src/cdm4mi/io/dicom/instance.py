"""One DICOM file: its header, read without the pixels, and where in the file those begin."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import from_file
from cdm4mi.io.dicom.values import text, where
from cdm4mi.io.scan_file import GZIP, ScanFile

PIXEL_DATA = 0x7FE00010
FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
"""Bits of a pixel by the tag of float pixel data."""
Elements = dict[RawDataElement, RawDataElement]
# Where a file without a preamble may begin.
_FIRST_TAGS = {(2, 0), (2, 1), (2, 2), (2, 16), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x16)}
_MAX_INFLATED = 2**30
_PREAMBLE = 128


class _Bounded(io.BufferedReader):
    """A file whose ``read`` never takes more memory than the file has bytes, whatever length an element claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 65536:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@dataclass
class Instance:
    """Header of one DICOM file (no pixels), and where in the file its pixel data begin.

    size: bytes of the file, of a packed or deflated one unpacked.
    """

    file: ScanFile
    dataset: Dataset
    offset: int
    size: int
    syntax: UID
    inflated: tuple[int, bytes] | None = None
    """(tag, value) of the pixel data of a deflated file, which is read as a whole."""
    pixel_vr: str | None = None

    @property
    def name(self) -> str:
        """What messages call the file."""
        return self.file.name

    def pixel_data(self) -> tuple[int, bytes]:
        """(tag, value) of the pixel data element; read from the file at each call."""
        if self.inflated is not None:
            return self.inflated
        implicit, little = self.dataset.original_encoding
        try:
            with _open(self.file) as opened:
                opened.seek(self.offset)
                element = next(data_element_generator(opened, bool(implicit), bool(little)), None)
        except Exception:
            raise UserError(f"{self.name}: the pixel data are cut short or malformed") from None
        if element is None or not isinstance(element.value, bytes):
            raise UserError(f"{self.name}: has no pixel data, expected an image")
        self.pixel_vr = element.VR
        return int(element.tag), element.value

    def holds_floats(self) -> bool:
        """Whether its pixel data are floats, which have no sign, padding bits or rescale."""
        try:
            with self._opened_at_pixels() as (_, tag):
                return tag in FLOAT_BITS
        except Exception:
            return self.inflated is not None and self.inflated[0] in FLOAT_BITS

    def native_pixels(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
        """Uncompressed pixels as a map of the file; None where they are not all there, or not in a file.

        dtype: of integers; float pixel data have their own, in its byte order.
        """
        try:
            with self._opened_at_pixels() as (opened, tag):
                bits = FLOAT_BITS.get(tag)
                stored = dtype if bits is None else np.dtype(f"{dtype.byteorder}f{bits // 8}")
                return from_file(opened, stored, shape, opened.tell())
        except Exception:
            return None  # what is wrong is said where they are read as a whole

    @contextmanager
    def compressed_pixels(self) -> Iterator[BinaryIO | None]:
        """The open file where the value of its compressed pixel data begins; None as for ``native_pixels``."""
        with ExitStack() as stack:
            try:
                opened, tag = stack.enter_context(self._opened_at_pixels())
            except Exception:
                yield None
                return
            yield opened if tag == PIXEL_DATA else None

    @contextmanager
    def _opened_at_pixels(self) -> Iterator[tuple[BinaryIO, int]]:
        """The open file where the value of its pixel data begins, and their tag. Raises ValueError without any."""
        if self.inflated is not None:
            raise ValueError("not in the file as they are")
        implicit, little = self.dataset.original_encoding
        with _open(self.file) as opened:
            opened.seek(self.offset)
            element = next(data_element_generator(opened, bool(implicit), bool(little), defer_size=1), None)
            if not isinstance(element, RawDataElement) or element.tag not in (PIXEL_DATA, *FLOAT_BITS):
                raise ValueError("no pixel data")
            opened.seek(element.value_tell)
            yield opened, int(element.tag)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are DICOM, with its preamble or (older files) without."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    first = (int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little"))
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    if explicit and (first[0] << 8 | first[0] >> 8) & 0xFFFF == 8:  # group 8 of a big endian file
        return True
    return first in _FIRST_TAGS and (explicit or int.from_bytes(head[4:8], "little") < 256)


def _open(file: ScanFile) -> BinaryIO:
    """The file to read from; what a gzip file packs."""
    head = file.head(_PREAMBLE + 4)  # a preamble may begin with anything
    if head.startswith(GZIP) and head[_PREAMBLE:] != b"DICM":
        return file.unpacked()
    return file.open() if file.path is None else _Bounded(file.path)


def open_instance(file: ScanFile, shared: Elements | None = None) -> Instance:
    """Read the header of one DICOM file, without its pixels. UserError where it is damaged.

    shared: elements of other files, which this one takes where its own are equal and adds to: most of a series are.
    """
    name = file.name
    try:
        with _open(file) as opened:
            deflated = DeflatedExplicitVRLittleEndian.encode() in opened.read(4096)
            if deflated:
                _check_inflated(opened, name)
            opened.seek(0)
            read = pydicom.dcmread(opened, stop_before_pixels=not deflated, force=True)
            offset = opened.tell()
            size = opened.seek(0, os.SEEK_END)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception as error:
        raise UserError(f"{name}: not a readable DICOM file, or damaged{where(error)}") from None
    if not len(read):
        raise UserError(f"{name}: not a readable DICOM file (no data elements)")
    # without the hold on the file that pydicom's FileDataset keeps
    dataset = Dataset(read if shared is None else _sharing(read, shared))
    dataset.file_meta = read.file_meta
    implicit, little = read.original_encoding
    dataset.set_original_encoding(implicit, little, read.original_character_set)
    inflated = None
    for tag in (PIXEL_DATA, *FLOAT_BITS):
        if deflated and tag in dataset:
            inflated = (tag, dataset[tag].value)
            size = max(size, len(inflated[1] or b""))
            del dataset[tag]
    return Instance(file, dataset, offset, size, _transfer_syntax(dataset), inflated)


def _sharing(dataset: Dataset, shared: Elements) -> dict[BaseTag, DataElement | RawDataElement]:
    """The elements of a data set, as the objects that equal ones of other data sets are."""
    found = {}
    for element in dataset.values():
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            element = element._replace(value_tell=0)  # where it lay in the file
            element = shared.setdefault(element, element)
        found[element.tag] = element
    return found


def _transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax, guessed from how the elements are encoded where the file does not say."""
    syntax = UID(text(dataset.file_meta, "TransferSyntaxUID"))
    if syntax and syntax.is_transfer_syntax:
        return syntax
    implicit, little = dataset.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check_inflated(file: BinaryIO, name: str) -> None:
    """pydicom inflates a deflated file as a whole: look first how large it would become."""
    file.seek(132)
    head = file.read(12)
    if head[:6] != b"\x02\0\0\0UL":
        raise UserError(f"{name}: the file meta information of a deflated file has no length, expected (0002,0000)")
    file.seek(int.from_bytes(head[8:], "little"), 1)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    data = file.read(65536)
    try:
        while data and not inflater.eof:
            total += len(inflater.decompress(data, 2**24))
            if total > _MAX_INFLATED:
                raise UserError(f"{name}: inflates to more than {_MAX_INFLATED >> 30} GB, expected less")
            data = inflater.unconsumed_tail or file.read(65536)
    except zlib.error:
        raise UserError(f"{name}: the deflated data set is damaged") from None
