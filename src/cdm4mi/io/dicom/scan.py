"""Find DICOM images among files and sort them into scans: one stack of planes of one series each."""

from __future__ import annotations

import io
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.frames import frame_count
from cdm4mi.io.dicom.values import numbers, text, texts, where, whole
from cdm4mi.io.scan_file import ScanFile

# Objects of these modalities hold no scan, even where they have pixels (dose grids, segmentations).
NOT_SCANS = {
    "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "SEG", "REG", "RWV", "FID", "DOC", "AU", "ECG",
}  # fmt: skip
# Parts of a complex image that must not be mixed with the magnitude.
_COMPLEX_PARTS = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "VELOCITY"}
# Where a file without a preamble may begin.
_FIRST_TAGS = {(2, 0), (2, 1), (2, 2), (2, 16), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x16)}
_MAX_INFLATED = 2**30
# How far the components of two planes' directions may differ before they are no longer parallel.
PARALLEL = 0.02
# Series, SOP class, rows, columns, pixel spacing, parts of a complex image, and the instance that stands alone.
_StackKey = tuple[str, str, int, int, str, tuple[str, ...], str]


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
    """Header of one DICOM file (no pixels), and where in the file its pixel data begin."""

    file: ScanFile
    dataset: Dataset
    offset: int
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


@dataclass
class DicomScan:
    """Instances that make one stack; ``part`` of ``parts`` where one series was split."""

    instances: list[Instance]
    part: int = 1
    parts: int = 1


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
    return file.open() if file.path is None else _Bounded(file.path)


def open_instance(file: ScanFile) -> Instance:
    """Read the header of one DICOM file, without its pixels. UserError where it is damaged."""
    name = file.name
    try:
        with _open(file) as opened:
            deflated = DeflatedExplicitVRLittleEndian.encode() in opened.read(4096)
            if deflated:
                _check_inflated(opened, name)
            opened.seek(0)
            read = pydicom.dcmread(opened, stop_before_pixels=not deflated, force=True)
            offset = opened.tell()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception as error:
        raise UserError(f"{name}: not a readable DICOM file, or damaged{where(error)}") from None
    if not len(read):
        raise UserError(f"{name}: not a readable DICOM file (no data elements)")
    dataset = Dataset(read)  # without the hold on the file that pydicom's FileDataset keeps
    dataset.file_meta = read.file_meta
    implicit, little = read.original_encoding
    dataset.set_original_encoding(implicit, little, read.original_character_set)
    inflated = None
    for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009):
        if deflated and tag in dataset:
            inflated = (tag, dataset[tag].value)
            del dataset[tag]
    return Instance(file, dataset, offset, _transfer_syntax(dataset), inflated)


def is_directory(dataset: Dataset) -> bool:
    """Whether the file is a DICOMDIR, which names the files of a medium."""
    return "DirectoryRecordSequence" in dataset


def sort_into_scans(instances: Iterable[Instance]) -> tuple[list[DicomScan], Counter[str]]:
    """Sort instances into scans, in an order that no file name decides. Objects without an image are counted."""
    groups: dict[_StackKey, list[Instance]] = {}
    passed_over: Counter[str] = Counter()
    for instance in instances:
        if is_scan(instance.dataset):
            groups.setdefault(_key(instance.dataset), []).append(instance)
        else:
            passed_over[_kind(instance.dataset)] += 1
    parts: dict[str, list[list[Instance]]] = {}
    for key in sorted(groups, key=str):
        stack = sorted(groups[key], key=lambda instance: text(instance.dataset, "SOPInstanceUID"))
        parts.setdefault(key[0], []).extend(_parallel(stack))
    scans = [DicomScan(stack, n, len(stacks)) for stacks in parts.values() for n, stack in enumerate(stacks, 1)]
    return sorted(scans, key=_listing_order), passed_over


def _parallel(instances: list[Instance]) -> list[list[Instance]]:
    """Split instances into sets of parallel planes, ordered by orientation; rounded headers do not split a series."""
    sets: list[tuple[list[float], list[Instance]]] = []
    by_text: dict[str, list[Instance]] = {}
    for instance in instances:
        directions = text(instance.dataset, "ImageOrientationPatient")
        if directions not in by_text:
            found = numbers(instance.dataset, "ImageOrientationPatient", 6)
            orientation = [] if found is None else found.tolist()
            planes = next((planes for first, planes in sets if _near(first, orientation)), None)
            if planes is None:
                planes = []
                sets.append((orientation, planes))
            by_text[directions] = planes
        by_text[directions].append(instance)
    return [planes for _, planes in sorted(sets, key=lambda one: one[0])]


def _near(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= PARALLEL for x, y in zip(a, b, strict=True))


def single_scan(instance: Instance) -> DicomScan:
    """Make a scan of one file. UserError, saying what the file is, where it holds no image."""
    if not is_scan(instance.dataset):
        raise UserError(f"{instance.name}: holds no scan ({_kind(instance.dataset)}), expected an image")
    return DicomScan([instance])


def is_scan(dataset: Dataset) -> bool:
    return whole(dataset, "Rows") > 0 and whole(dataset, "Columns") > 0 and text(dataset, "Modality") not in NOT_SCANS


def description(scan: DicomScan) -> str:
    """SeriesDescription, with the part where one series was split."""
    first = scan.instances[0].dataset
    named = text(first, "SeriesDescription") or text(first, "ProtocolName")
    return f"{named} (part {scan.part} of {scan.parts})".strip() if scan.parts > 1 else named


def _kind(dataset: Dataset) -> str:
    """Name an object that holds no scan (a report, a plan ...), for messages."""
    sop_class = UID(text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID"))
    named = "" if sop_class.name == sop_class else sop_class.name.removesuffix(" Storage")
    if named.endswith("Image"):
        return f"{named} without pixels"
    return named or text(dataset, "Modality") or "no pixels"


def _key(dataset: Dataset) -> _StackKey:
    """Key that the planes of one stack share: series, class, size, spacing, part of a complex image."""
    placed = numbers(dataset, "ImageOrientationPatient", 6), numbers(dataset, "ImagePositionPatient", 3)
    alone = any(found is None for found in placed) or frame_count(dataset) > 1
    kinds = {kind.upper() for kind in texts(dataset, "ImageType")[2:]}
    return (
        text(dataset, "SeriesInstanceUID"),
        text(dataset, "SOPClassUID"),
        whole(dataset, "Rows"),
        whole(dataset, "Columns"),
        text(dataset, "PixelSpacing"),
        tuple(sorted(_COMPLEX_PARTS & kinds)),
        text(dataset, "SOPInstanceUID") if alone else "",
    )


def _listing_order(scan: DicomScan) -> tuple[str, int, str, int]:
    first = scan.instances[0].dataset
    number = whole(first, "SeriesNumber")
    return (text(first, "StudyInstanceUID"), number, text(first, "SeriesInstanceUID"), scan.part)


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
