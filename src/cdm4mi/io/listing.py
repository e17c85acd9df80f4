"""The scans that a path holds: a file, a folder (recursively), a DICOMDIR, or a zip of any of these."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdm4mi.errors import UserError, amount
from cdm4mi.files import writing
from cdm4mi.io.detect import detect
from cdm4mi.io.dicom.instance import Elements, Instance, open_instance
from cdm4mi.io.dicom.mosaic import plane_size
from cdm4mi.io.dicom.read import read_dicom
from cdm4mi.io.dicom.scan import DicomScan, description, is_directory, scans_of, sort_into_scans
from cdm4mi.io.dicom.values import items, text, texts, whole
from cdm4mi.io.folders import folders_under
from cdm4mi.io.formats import FORMATS, files_of, format_of_ending, is_data_file, readable
from cdm4mi.io.formats.format import HEAD
from cdm4mi.io.quiet import quiet
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Volume

_ZIP_GAIN, _ZIP_PLENTY = 100, 2**31


@dataclass
class ScanInfo:
    """One scan as listed: ``number`` counts from 1 and is what ``series=`` takes; ``shape`` is () where not known.

    ``paths`` are the files it is read from, headers first. ``series_number`` is what a DICOM header says (None without
    one), and so is ``patient_id``: patient data, to tell patients apart and never to be shown or written. ``mixed``:
    attributes in which the files of its DICOM series differ and must not, which the volume's warnings name.
    """

    number: int
    kind: str
    description: str
    modality: str
    shape: tuple[int, ...]
    files: int
    reader: Callable[[], Volume]
    paths: tuple[Path, ...] = ()
    series_number: int | None = None
    patient_id: str = field(default="", repr=False)
    mixed: tuple[str, ...] = ()

    def load(self) -> Volume:
        """Read the scan."""
        with quiet():
            return self.reader()

    def line(self) -> str:
        """One line for a person: number, modality, description, size."""
        what = f"{self.number}: {self.modality or self.kind} {self.description or '(no description)'}"
        size = ", " + " x ".join(str(n) for n in self.shape) if self.shape else ""
        return f"{what}{size}, {self.files} file{'s' if self.files != 1 else ''}"


@dataclass
class Listing:
    """All scans of a path in a fixed order, and the count of objects that are none, by kind.

    ``unreadable``: names of files that should be scans and are empty, damaged or something else.
    """

    scans: list[ScanInfo] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def counted(self, without: str = "") -> str:
        """What was passed over as one line, "2 Basic Text SR, 1 unreadable (7.dcm)"; "" for nothing."""
        kinds = [f"{count} {kind}" for kind, count in sorted(self.passed_over.items()) if kind != without]
        return ", ".join([*kinds, *([f"{len(self.unreadable)} {self.unreadable_names()}"] if self.unreadable else [])])

    def unreadable_names(self) -> str:
        """What cannot be read as "unreadable (7.dcm, 8.dcm)", at most three by name."""
        more = ["..."] if len(self.unreadable) > 3 else []
        return f"unreadable ({', '.join([*self.unreadable[:3], *more])})"

    def choose(self, name: str, series: int | str | None) -> ScanInfo:
        """Return the only scan, or the one whose number is given; otherwise raise UserError with the list."""
        if series is None and len(self.scans) == 1:
            return self.scans[0]
        if series is None:
            lines = "; ".join(scan.line() for scan in self.scans)
            raise UserError(f"{name}: holds {len(self.scans)} scans, expected the number of one (`series`): {lines}")
        number = int(series) if str(series).isdigit() else 0
        if not 1 <= number <= len(self.scans):
            raise UserError(f"{name}: has no series {series}, expected a number from 1 to {len(self.scans)}")
        return self.scans[number - 1]


def list_scans(path: str | os.PathLike[str]) -> Listing:
    """List the scans that a path holds, without reading voxels. UserError where there is none."""
    path = Path(path)
    if path.is_dir():
        files = sorted((file for _, here in folders_under(path) for file in here), key=str)
        listing = _list([ScanFile(str(file.relative_to(path)), file) for file in files])
        return _not_empty(listing, path.name or str(path))
    if not path.is_file():
        raise UserError(f"{path}: does not exist or is no file, expected a scan (a file or a folder)")
    return list_file(ScanFile(path.name, path))


def list_file(file: ScanFile, format: str | None = None) -> Listing:
    """List the scans of one file, whose format follows from its content unless it is given."""
    kind = format or detect(file)
    if kind == "zip":
        return _of_zip(file)
    if kind in FORMATS:
        return Listing([_file_info(file, kind, 1)])
    if kind != "dicom":
        if format is None:
            raise UserError(f"{file.name}: not in a format that is known, expected {readable()}")
        raise UserError(field="format", found=format, expected=", ".join(["dicom", *FORMATS, "zip"]))
    with quiet():
        instance = open_instance(file)
        if is_directory(instance.dataset):
            return _of_dicomdir(file, instance)
        return Listing([_dicom_info(scan, number) for number, scan in enumerate(scans_of(instance), 1)])


def list_files(paths: Sequence[Path], name: str) -> Listing:
    """List the scans that these files are together, as ``list_scans`` does for a folder called ``name``."""
    return _not_empty(sort_files(paths), name)


def sort_files(paths: Sequence[Path]) -> Listing:
    """List the scans that these files are together, none at all too."""
    return _list([ScanFile(path.name, path) for path in paths])


def _not_empty(listing: Listing, name: str) -> Listing:
    if not listing.scans:
        raise UserError(f"{name}: holds no scan ({listing.counted() or 'no files'}), expected {readable()}")
    return listing


def _list(files: Sequence[ScanFile]) -> Listing:
    """Scans of several files. Beside DICOM images other formats are only counted."""
    instances: list[Instance] = []
    others: list[tuple[ScanFile, str]] = []
    unknown: list[ScanFile] = []
    unreadable: list[str] = []
    shared: Elements = {}
    with quiet():
        for file in files:
            try:
                kind = detect(file)
                if kind == "dicom":
                    instance = open_instance(file, shared)
                    if not is_directory(instance.dataset):
                        instances.append(instance)
                # A data file (.img, .raw) is read with its header.
                elif file.path is None or not is_data_file(file.path):
                    if kind in FORMATS:
                        others.append((file, kind))
                    elif kind is None:
                        unknown.append(file)
            except UserError:
                unreadable.append(file.name)
        endings = {Path(instance.name).suffix for instance in instances}
        broken = [file.name for file in unknown if is_broken(file, endings)]
        unreadable = sorted(unreadable + broken)
        scans, passed_over = sort_into_scans(instances)
        passed_over["other files"] += len(unknown) - len(broken)
        passed_over = +passed_over  # without what there is none of
        if scans:
            passed_over.update(f"{kind} files" for _, kind in others)
            found = [_dicom_info(scan, number) for number, scan in enumerate(scans, 1)]
            return Listing(found, passed_over, unreadable)
    kinds = {kind for _, kind in others}
    read_folder = FORMATS[kinds.pop()].read_folder if len(kinds) == 1 and len(others) > 1 else None
    if read_folder is not None:
        slices = [file for file, _ in others]
        info = ScanInfo(1, others[0][1], "patches", "", (), len(slices), lambda: read_folder(slices))
        return Listing([info], passed_over, unreadable)
    found = [_file_info(file, kind, number) for number, (file, kind) in enumerate(others, 1)]
    return Listing(found, passed_over, unreadable)


def is_broken(file: ScanFile, endings: Iterable[str]) -> bool:
    """Whether a file in no known format should be a scan.

    It is named as one, or it is empty, zeros (as a full disk leaves it) or not to be read, under one of the ``endings``
    of the scans beside it.
    """
    path = Path(file.name.removesuffix(".gz") if file.name.endswith(".dcm.gz") else file.name)
    if path.name.startswith("."):
        return False
    if format_of_ending(path) not in (None, "png") and not is_data_file(path):
        return True
    try:
        return path.suffix in endings and not file.head(HEAD).strip(b"\0")
    except UserError:  # it cannot be read
        return True


def _of_dicomdir(file: ScanFile, instance: Instance) -> Listing:
    """List the scans of the files that a DICOMDIR names, as far as they lie in its folder."""
    if file.path is None:
        raise UserError(f"{file.name}: is a DICOMDIR, which names files beside it; expected its path")
    root = file.path.parent.resolve()
    files = []
    missing = 0
    for record in items(instance.dataset, "DirectoryRecordSequence"):
        parts = texts(record, "ReferencedFileID")
        if not parts:
            continue
        path = root.joinpath(*parts)
        if path.is_file() and root in path.resolve().parents:
            files.append(ScanFile("/".join(parts), path))
        else:
            missing += 1
    if not files:
        raise UserError(f"{file.name}: names {missing} files, none of which is there, expected the files beside it")
    listing = _not_empty(_list(files), file.name)
    if missing:
        listing.passed_over["missing"] += missing
    return listing


def _of_zip(file: ScanFile) -> Listing:
    """List the scans of a zip, unpacked into a temporary folder that goes with the listing; sizes are checked first."""
    folder = Path(tempfile.mkdtemp(prefix="cdm4mi-"))
    try:
        with zipfile.ZipFile(file.handle) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and not e.filename.startswith("__MACOSX")]
            total = sum(e.file_size for e in entries)
            if total > _ZIP_PLENTY and total > _ZIP_GAIN * file.size:
                raise UserError(
                    f"{file.name}: claims to unpack to {total / 2**30:.0f} GB, expected at most {_ZIP_GAIN} times"
                )
            if total > (most := shutil.disk_usage(folder).free // 2):
                what = f"half of the free disk of {folder.parent}"
                raise UserError(f"{file.name}: unpacks to {amount(total)}, more than {amount(most)}, {what}")
            # Folders are numbered, so that no name in the archive can lead out of the temporary folder.
            subfolders: dict[str, Path] = {}
            files = []
            for entry in entries:
                inside = os.path.dirname(entry.filename)
                subfolder = subfolders.setdefault(inside, folder / str(len(subfolders)))
                subfolder.mkdir(exist_ok=True)
                target = subfolder / (os.path.basename(entry.filename.replace("\\", "/")) or "file")
                with archive.open(entry) as packed, writing(folder.parent), open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                files.append(ScanFile(entry.filename, target))
        listing = _not_empty(_list(sorted(files, key=lambda file: file.name)), file.name)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{file.name}: not a readable zip file, or damaged or encrypted") from None
    weakref.finalize(listing, shutil.rmtree, folder, ignore_errors=True)
    for info in listing.scans:
        info.reader = _with_paths(info.reader, file.paths)
    return listing


def _with_paths(reader: Callable[[], Volume], paths: tuple[Path, ...]) -> Callable[[], Volume]:
    """The reader of a volume whose source is the archive, not the files that were unpacked."""

    def read() -> Volume:
        volume = reader()
        if volume.source is not None:
            volume.source.paths = paths
        return volume

    return read


def _file_info(file: ScanFile, kind: str, number: int) -> ScanInfo:
    paths = () if file.path is None else files_of(file.path)
    return ScanInfo(number, kind, file.name, "", (), 1, lambda: FORMATS[kind].load(file), paths)


def _dicom_info(scan: DicomScan, number: int) -> ScanInfo:
    first = scan.instances[0].dataset
    shape = (scan.slices(), *plane_size(first))
    modality = text(first, "Modality")
    paths = tuple(path for instance in scan.instances for path in instance.file.paths)
    return ScanInfo(
        number,
        "dicom",
        description(scan),
        modality,
        shape,
        len(scan.instances),
        lambda: read_dicom(scan),
        paths,
        whole(first, "SeriesNumber") if "SeriesNumber" in first else None,
        text(first, "PatientID"),
        scan.mixed,
    )
