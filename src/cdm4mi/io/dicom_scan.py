"""Find DICOM images among files and sort them into scans: one stack of planes of one series each."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cdm4mi.errors import UserError
from cdm4mi.io.dicom_frames import frame_count, numbers

# Objects of these modalities hold no scan, even where they have pixels (dose grids, segmentations).
NOT_SCANS = {
    "SR",
    "PR",
    "KO",
    "RTSTRUCT",
    "RTPLAN",
    "RTRECORD",
    "RTDOSE",
    "SEG",
    "REG",
    "RWV",
    "FID",
    "DOC",
    "AU",
    "ECG",
}
# Parts of a complex image that must not be mixed with the magnitude.
_COMPLEX_PARTS = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "VELOCITY"}
_MAX_INFLATED = 2**30
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


@dataclass
class Instance:
    """Header of one DICOM file, and where in it the pixel data begin (None: held in ``tail`` already)."""

    path: Path
    name: str
    dataset: Dataset
    offset: int | None
    tail: Dataset | None = None

    def pixel_elements(self) -> Dataset:
        """The elements from the pixel data on; read from the file at each call."""
        if self.tail is not None:
            return self.tail
        assert self.offset is not None
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                implicit, little = self.dataset.original_encoding
                return read_dataset(file, bool(implicit), bool(little))
        except Exception:
            raise UserError(f"{self.name}: the pixel data are cut short or malformed") from None


@dataclass
class DicomScan:
    """Instances that make one stack."""

    instances: list[Instance]
    part: int = 1
    parts: int = 1
    notes: list[str] = field(default_factory=list)


@dataclass
class Found:
    """What a set of files holds: scans in a fixed order, and how many objects were passed over, by kind."""

    scans: list[DicomScan]
    passed_over: dict[str, int]


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM, with its preamble or (older files) without."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    length = int.from_bytes(head[4:8], "little")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return (group, element) in {(2, 0), (8, 0), (8, 1), (8, 5), (8, 8), (2, 1), (2, 2), (2, 16)} and (
        explicit or length < 256
    )


def open_instance(path: Path, name: str) -> Instance:
    """Read the header of one file, without its pixels. UserError where it is not readable DICOM."""
    try:
        with open(path, "rb") as file:
            _check_deflated(file, name)
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            offset = file.tell()
        if _transfer_syntax(dataset) == DeflatedExplicitVRLittleEndian:
            whole = pydicom.dcmread(path, force=True)
            tail = Dataset()
            for tag in _PIXEL_TAGS:
                if tag in whole:
                    tail[tag] = whole[tag]
            return Instance(path, name, dataset, None, tail)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except Exception as error:
        raise UserError(f"{name}: not a readable DICOM file ({_one_line(error)})") from None
    if not len(dataset):
        raise UserError(f"{name}: not a readable DICOM file (no data elements)")
    return Instance(path, name, dataset, offset)


def find_scans(files: Iterable[tuple[Path, str]]) -> Found:
    """Sort files (path, name for messages) into scans; broken files and objects without a scan are counted.

    The order depends on what the headers say, never on file names.
    """
    groups: dict[tuple, list[Instance]] = {}
    passed_over: dict[str, int] = {}
    for path, name in files:
        try:
            instance = open_instance(path, name)
            key = _key(instance)
        except UserError:
            key = None
            passed_over["unreadable"] = passed_over.get("unreadable", 0) + 1
        else:
            if key is None:
                kind = str(text(instance.dataset, "Modality") or "no image")
                passed_over[kind] = passed_over.get(kind, 0) + 1
        if key is not None:
            groups.setdefault(key, []).append(instance)
    parts: dict[str, list[tuple]] = {}
    for key in groups:
        parts.setdefault(key[0], []).append(key)
    scans = []
    for keys in parts.values():
        keys.sort(key=lambda key: str(key))
        for number, key in enumerate(keys, 1):
            instances = sorted(groups[key], key=lambda i: str(i.dataset.get("SOPInstanceUID", "")))
            scans.append(DicomScan(instances, number, len(keys)))
    scans.sort(key=_listing_order)
    return Found(scans, passed_over)


def single_scan(instance: Instance) -> DicomScan:
    """The scan that one file is; refused, with what it is, where it holds none."""
    if not is_scan(instance.dataset):
        kind = text(instance.dataset, "Modality") or "an object without pixels"
        sop_class = UID(str(instance.dataset.get("SOPClassUID") or "")).name
        raise UserError(f"{instance.name}: is {sop_class or kind}, expected an image")
    return DicomScan([instance])


def is_scan(dataset: Dataset) -> bool:
    return bool(dataset.get("Rows")) and bool(dataset.get("Columns")) and text(dataset, "Modality") not in NOT_SCANS


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as one stripped string, "" where it is absent or malformed."""
    try:
        value = dataset.get(keyword)
    except Exception:
        return ""
    return "" if value is None else str(value).strip()


def description(scan: DicomScan) -> str:
    """SeriesDescription, with the part where one series was split."""
    first = scan.instances[0].dataset
    named = text(first, "SeriesDescription") or text(first, "ProtocolName")
    return f"{named} (part {scan.part} of {scan.parts})".strip() if scan.parts > 1 else named


def _key(instance: Instance) -> tuple | None:
    """What the planes of one stack have in common, or None for an object that holds no scan."""
    dataset = instance.dataset
    if not is_scan(dataset):
        return None
    series = text(dataset, "SeriesInstanceUID")
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    position = numbers(dataset, "ImagePositionPatient", 3)
    alone = frame_count(dataset) > 1 or orientation is None or position is None
    plane = "" if orientation is None else " ".join(f"{v + 0.0:.2f}" for v in np.round(orientation, 2) + 0.0)
    kinds = dataset.get("ImageType") or []
    kinds = [kinds] if isinstance(kinds, str) else [str(kind).upper() for kind in kinds]
    return (
        series,
        text(dataset, "SOPClassUID"),
        int(dataset.Rows),
        int(dataset.Columns),
        plane,
        " ".join(f"{v:.4f}" for v in found) if (found := numbers(dataset, "PixelSpacing", 2)) is not None else "",
        " ".join(sorted(_COMPLEX_PARTS.intersection(kinds[2:]))),
        text(dataset, "SOPInstanceUID") if alone else "",
    )


def _listing_order(scan: DicomScan) -> tuple:
    first = scan.instances[0].dataset
    try:
        number = int(first.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return (text(first, "StudyInstanceUID"), number, text(first, "SeriesInstanceUID"), scan.part)


def _transfer_syntax(dataset: Dataset) -> str:
    return str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", ""))


def _check_deflated(file, name: str) -> None:
    """A deflated file is inflated whole by pydicom: look first how large it would become."""
    head = file.read(4096)
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    try:
        file.seek(0)
        meta = pydicom.filereader.read_preamble(file, True) and pydicom.filereader._read_file_meta_info(file)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        total = 0
        data = file.read(65536)
        while data and meta is not None:
            total += len(inflater.decompress(data, 2**24))
            if total > _MAX_INFLATED:
                raise UserError(f"{name}: inflates to more than {_MAX_INFLATED >> 30} GB, expected less")
            data = inflater.unconsumed_tail or file.read(65536)
    except zlib.error:
        raise UserError(f"{name}: the deflated data set is damaged") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
