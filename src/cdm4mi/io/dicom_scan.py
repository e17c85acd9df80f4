"""Find DICOM images among files and sort them into scans: one stack of planes of one series each."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
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
from cdm4mi.io.dicom_frames import frame_count
from cdm4mi.io.dicom_values import numbers, text, texts, where, whole

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
    """A file that takes memory for what it holds, not for what an element's length claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 65536:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


class NotDicom(UserError):
    """A file whose first bytes are not those of DICOM."""


@dataclass
class Instance:
    """Header of one DICOM file (no pixels), and where in the file its pixel data begin."""

    path: Path
    name: str
    dataset: Dataset
    offset: int
    syntax: UID
    held: tuple[int, bytes] | None = None
    pixel_vr: str | None = None

    def pixel_data(self) -> tuple[int, bytes]:
        """(tag, value) of the pixel data element; read from the file at each call."""
        if self.held is not None:
            return self.held
        implicit, little = self.dataset.original_encoding
        try:
            with _Bounded(self.path) as file:
                file.seek(self.offset)
                element = next(data_element_generator(file, bool(implicit), bool(little)), None)
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


@dataclass
class Found:
    """What a set of files holds: scans in a fixed order, and how many objects were passed over, by kind."""

    scans: list[DicomScan] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)


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


def open_instance(path: Path, name: str) -> Instance:
    """Read the header of one file, without its pixels. UserError where it is not readable DICOM."""
    try:
        with _Bounded(path) as file:
            head = file.read(4096)
            if not looks_like_dicom(head):
                raise NotDicom(f"{name}: is not DICOM")
            deflated = DeflatedExplicitVRLittleEndian.encode() in head
            if deflated:
                _check_inflated(file, name)
            file.seek(0)
            read = pydicom.dcmread(file, stop_before_pixels=not deflated, force=True)
            offset = file.tell()
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
    held = None
    for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009):
        if deflated and tag in dataset:
            held = (tag, dataset[tag].value)
            del dataset[tag]
    return Instance(path, name, dataset, offset, _transfer_syntax(dataset), held)


def sort_into_scans(instances: Iterable[Instance]) -> Found:
    """Sort instances into scans; objects without a scan are counted.

    The order depends on what the headers say, never on file names.
    """
    groups: dict[_StackKey, list[Instance]] = {}
    found = Found()
    for instance in instances:
        if is_scan(instance.dataset):
            groups.setdefault(_key(instance.dataset), []).append(instance)
        else:
            add_passed_over(found.passed_over, _kind(instance.dataset))
    parts: dict[str, list[list[Instance]]] = {}
    for key in sorted(groups, key=str):
        own = sorted(groups[key], key=lambda instance: text(instance.dataset, "SOPInstanceUID"))
        parts.setdefault(key[0], []).extend(_parallel(own))
    for stacks in parts.values():
        found.scans += [DicomScan(own, number, len(stacks)) for number, own in enumerate(stacks, 1)]
    found.scans.sort(key=_listing_order)
    return found


def _parallel(instances: list[Instance]) -> list[list[Instance]]:
    """Sets of parallel planes, in the order of their orientation; a scanner's last digits do not split a series."""
    sets: list[tuple[list[float], list[Instance]]] = []
    by_text: dict[str, list[Instance]] = {}
    for instance in instances:
        said = text(instance.dataset, "ImageOrientationPatient")
        if said not in by_text:
            found = numbers(instance.dataset, "ImageOrientationPatient", 6)
            orientation = [] if found is None else found.tolist()
            own = next((own for first, own in sets if _near(first, orientation)), None)
            if own is None:
                own = []
                sets.append((orientation, own))
            by_text[said] = own
        by_text[said].append(instance)
    return [own for _, own in sorted(sets, key=lambda one: one[0])]


def _near(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= PARALLEL for x, y in zip(a, b, strict=True))


def add_passed_over(counts: dict[str, int], kind: str, count: int = 1) -> None:
    counts[kind] = counts.get(kind, 0) + count


def single_scan(instance: Instance) -> DicomScan:
    """The scan that one file is; refused, with what it is, where it holds none."""
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
    """What an object without a scan is, in words."""
    sop_class = UID(text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID"))
    named = "" if sop_class.name == sop_class else sop_class.name.removesuffix(" Storage")
    if named.endswith("Image"):
        return f"{named} without pixels"
    return named or text(dataset, "Modality") or "no pixels"


def _key(dataset: Dataset) -> _StackKey:
    """What the planes of one stack have in common, beside their orientation."""
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
    said = text(dataset.file_meta, "TransferSyntaxUID")
    if said and UID(said).is_transfer_syntax:
        return UID(said)
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
