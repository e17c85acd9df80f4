"""The scans that a path holds: a file, a folder (recursively), a DICOMDIR, or a zip of any of these."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.io.dicom_frames import frame_count
from cdm4mi.io.dicom_read import read_dicom
from cdm4mi.io.dicom_scan import (
    DicomScan,
    Instance,
    NotDicom,
    add_passed_over,
    description,
    open_instance,
    single_scan,
    sort_into_scans,
)
from cdm4mi.io.dicom_values import items, text, texts, whole
from cdm4mi.io.quiet import quiet
from cdm4mi.io.registry import FORMATS
from cdm4mi.io.sniff import sniff
from cdm4mi.io.volume import Volume

# Ending of a header -> endings of the files beside it that can hold its voxels.
_DATA_ENDINGS = {
    ".hdr": (".img", ".img.gz"), ".img": (".hdr",), ".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz", ".gz"),
}  # fmt: skip
_DICOMDIR = "1.2.840.10008.1.3.10"
_KNOWN = f"DICOM, {', '.join(its.title for its in FORMATS.values())} or a zip of them"
_ZIP_GAIN, _ZIP_PLENTY = 100, 2**31


@dataclass
class ScanInfo:
    """One scan as listed: ``number`` counts from 1 and is what ``series=`` takes; ``shape`` is () where not known.

    ``paths`` are the files it is read from, headers first. ``patient_id`` is what a DICOM header says: patient data,
    to tell patients apart and never to be shown or written.
    """

    number: int
    kind: str
    description: str
    modality: str
    shape: tuple[int, ...]
    files: int
    reader: Callable[[], Volume]
    paths: tuple[Path, ...] = ()
    patient_id: str = field(default="", repr=False)

    def load(self) -> Volume:
        """Read the scan."""
        with quiet():
            return self.reader()

    def line(self) -> str:
        """One line for a person: number, modality, description, size."""
        said = f"{self.number}: {self.modality or self.kind} {self.description or '(no description)'}"
        size = ", " + " x ".join(str(n) for n in self.shape) if self.shape else ""
        return f"{said}{size}, {self.files} file{'s' if self.files != 1 else ''}"


@dataclass
class Listing:
    """All scans of a path in a fixed order, and the count of objects that are none, by kind."""

    scans: list[ScanInfo] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)

    def counted(self, without: str = "") -> str:
        """What was passed over as one line, "2 Basic Text SR, 1 unreadable"; "" for nothing."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed_over.items()) if kind != without)

    def choose(self, name: str, series: int | str | None) -> ScanInfo:
        """The only scan, or the one whose number is given; otherwise the list is in the error."""
        if series is None and len(self.scans) == 1:
            return self.scans[0]
        if series is None:
            lines = "; ".join(scan.line() for scan in self.scans)
            raise UserError(f"{name}: holds {len(self.scans)} scans, expected the number of one (--series): {lines}")
        number = int(series) if str(series).isdigit() else 0
        if not 1 <= number <= len(self.scans):
            raise UserError(f"{name}: has no series {series}, expected a number from 1 to {len(self.scans)}")
        return self.scans[number - 1]


def list_scans(path: str | Path) -> Listing:
    """List the scans that a path holds, without reading voxels. UserError where there is none."""
    with quiet():
        return _list(Path(path))


def list_files(files: Sequence[Path], name: str) -> Listing:
    """List the scans that these files are together, as ``list_scans`` does for a folder called ``name``."""
    with quiet():
        return _of_files([(path, path.name) for path in files], name)


def _list(path: Path) -> Listing:
    if path.is_dir():
        return _of_folder(path, path.name or str(path))
    if not path.is_file():
        raise UserError(f"{path}: does not exist or is no file, expected a scan (a file or a folder)")
    try:
        instance = open_instance(path, path.name)
    except NotDicom:
        return _of_file(path)
    if text(instance.dataset, "MediaStorageSOPClassUID") == _DICOMDIR or "DirectoryRecordSequence" in instance.dataset:
        return _of_dicomdir(path, instance)
    return Listing([_dicom_info(single_scan(instance), 1)])


def _of_file(path: Path) -> Listing:
    kind = sniff(path, path.name)
    if kind == "zip":
        return _of_zip(path)
    if kind is None:
        raise UserError(f"{path.name}: not in a format that is known, expected {_KNOWN}")
    return Listing([_file_info(path, path.name, kind, 1)])


def _of_folder(folder: Path, name: str) -> Listing:
    return _of_files(sorted(_files_under(str(folder), "")), name)


def _files_under(folder: str, inside: str) -> Iterator[tuple[Path, str]]:
    """Every regular file below a folder (no pipes, no dangling links), with its name inside it."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"{inside or os.path.basename(folder)}: cannot be listed ({error.strerror})") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_under(entry.path, f"{inside}{entry.name}/")
        elif entry.is_file():
            yield Path(entry.path), f"{inside}{entry.name}"


def _of_files(files: list[tuple[Path, str]], name: str) -> Listing:
    """Scans of several files (path, name for messages). Beside DICOM images other formats are only counted."""
    instances: list[Instance] = []
    others: list[tuple[Path, str, str]] = []
    passed_over: dict[str, int] = {}
    for path, file_name in files:
        try:
            instance = open_instance(path, file_name)
            if "DirectoryRecordSequence" not in instance.dataset:
                instances.append(instance)
        except NotDicom:
            kind = sniff(path, file_name)
            # The second file of a pair (.img, .raw) is read with its header.
            if kind in FORMATS and path.suffix.lower() != ".img":
                others.append((path, file_name, kind))
            elif kind is None and path.suffix.lower() not in (".raw", ".zraw", ".img"):
                add_passed_over(passed_over, "other files")
        except UserError:
            add_passed_over(passed_over, "unreadable")
    found = sort_into_scans(instances)
    for kind, count in found.passed_over.items():
        add_passed_over(passed_over, kind, count)
    if found.scans:
        for _, _, kind in others:
            add_passed_over(passed_over, f"{kind} files")
        return Listing([_dicom_info(scan, n) for n, scan in enumerate(found.scans, 1)], passed_over)
    if len(others) > 1 and all(kind == "hdf5" for *_, kind in others):
        from cdm4mi.io.hdf5 import read_hdf5_folder

        patches = [(path, file_name) for path, file_name, _ in others]
        info = ScanInfo(1, "hdf5", "patches", "", (), len(patches), lambda: read_hdf5_folder(patches))
        return Listing([info], passed_over)
    if not others:
        counted = Listing(passed_over=passed_over).counted()
        raise UserError(f"{name}: holds no scan ({counted or 'no files'}), expected {_KNOWN}")
    return Listing([_file_info(p, n, kind, i) for i, (p, n, kind) in enumerate(others, 1)], passed_over)


def _of_dicomdir(path: Path, instance: Instance) -> Listing:
    """The files that a DICOMDIR names, as far as they lie in its folder."""
    root = path.parent.resolve()
    files = []
    missing = 0
    for record in items(instance.dataset, "DirectoryRecordSequence"):
        parts = texts(record, "ReferencedFileID")
        if not parts:
            continue
        file = root.joinpath(*parts)
        if file.is_file() and root in file.resolve().parents:
            files.append((file, "/".join(parts)))
        else:
            missing += 1
    if not files:
        raise UserError(f"{path.name}: names {missing} files, none of which is there, expected the files beside it")
    listing = _of_files(files, path.name)
    if missing:
        add_passed_over(listing.passed_over, "missing", missing)
    return listing


def _of_zip(path: Path) -> Listing:
    """Unpacked into a temporary folder that is removed with the listing; sizes are checked first."""
    folder = Path(tempfile.mkdtemp(prefix="cdm4mi-"))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and not e.filename.startswith("__MACOSX")]
            total = sum(e.file_size for e in entries)
            if total > _ZIP_PLENTY and total > _ZIP_GAIN * path.stat().st_size:
                raise UserError(
                    f"{path.name}: claims to unpack to {total / 2**30:.0f} GB, expected at most {_ZIP_GAIN} times"
                )
            if total > shutil.disk_usage(folder).free // 2:
                raise UserError(f"{path.name}: unpacks to {total / 2**30:.1f} GB, more than the temporary folder has")
            places: dict[str, Path] = {}
            files = []
            for entry in entries:
                inside = os.path.dirname(entry.filename)
                place = places.setdefault(inside, folder / str(len(places)))
                place.mkdir(exist_ok=True)
                target = place / (os.path.basename(entry.filename.replace("\\", "/")) or "file")
                with archive.open(entry) as packed, open(target, "wb") as file:
                    shutil.copyfileobj(packed, file)
                files.append((target, entry.filename))
        listing = _of_files(sorted(files, key=lambda file: file[1]), path.name)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{path.name}: not a readable zip file, or damaged or encrypted") from None
    weakref.finalize(listing, shutil.rmtree, folder, ignore_errors=True)
    for info in listing.scans:
        info.reader = _with_paths(info.reader, (path,))
    return listing


def _with_paths(reader: Callable[[], Volume], paths: tuple[Path, ...]) -> Callable[[], Volume]:
    def loaded() -> Volume:
        volume = reader()
        if volume.source is not None:
            volume.source.paths = paths
        return volume

    return loaded


def _file_info(path: Path, name: str, kind: str, number: int) -> ScanInfo:
    read = FORMATS[kind].reader
    beside = [path.with_suffix(end) for end in _DATA_ENDINGS.get(path.suffix.lower(), ())]
    paths = (path, *(file for file in beside if file.is_file()))
    return ScanInfo(number, kind, name, "", (), 1, lambda: read(path, name), paths)


def _dicom_info(scan: DicomScan, number: int) -> ScanInfo:
    first = scan.instances[0].dataset
    frames = sum(frame_count(instance.dataset) for instance in scan.instances)
    shape = (frames, whole(first, "Rows"), whole(first, "Columns"))
    modality = text(first, "Modality")
    paths = tuple(instance.path for instance in scan.instances)
    patient = text(first, "PatientID")
    said = description(scan)
    return ScanInfo(number, "dicom", said, modality, shape, len(paths), lambda: read_dicom(scan), paths, patient)
