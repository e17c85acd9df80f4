"""The scans below some paths, each once, with a name for its patient; counts of files that are no scans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from cdm4mi import io
from cdm4mi.data.manifest import is_store
from cdm4mi.data.names import patch_patient, patient_names
from cdm4mi.errors import UserError
from cdm4mi.io.detect import detect
from cdm4mi.io.folders import Unlisted, folders_under
from cdm4mi.io.formats import format_of_ending, is_data_file
from cdm4mi.io.listing import is_broken
from cdm4mi.io.scan_file import ScanFile

_Entry = tuple[Path, tuple[Path, ...], Path, str]
"""The path to name a unit by, its files, the folder that was given, the kind of its files."""


@dataclass(frozen=True)
class Unit:
    """Files that are listed together: one file, or the DICOM files of one folder. ``label`` names it in messages.

    ``person`` is a name made of the path, for scans whose header has none; ``inside`` is the path below the folder
    that was given, by which a noisy scan finds its clean one.
    """

    files: tuple[Path, ...]
    label: str
    person: str
    inside: str
    folder: bool = False

    def listing(self) -> io.Listing:
        """The scans of the unit. UserError where there is none."""
        with self._named():
            return io.list_files(self.files, self.label) if self.folder else io.list_scans(self.files[0])

    def load(self, info: io.ScanInfo) -> io.Volume:
        """Read one of the scans. UserError where it cannot be."""
        with self._named():
            return info.load()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Within, messages begin with ``label``: a file's name alone may be that of many."""
        try:
            yield
        except UserError as error:
            message = str(error).removeprefix(f"{self.label}: ").removeprefix(f"{Path(self.label).name}: ")
            raise UserError(f"{self.label}: {message}") from None


@dataclass
class Inventory:
    """The units of some paths in a fixed order, and counts of files that were passed over, by kind.

    unlisted: folders that could not be looked into.
    """

    units: list[Unit] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    unlisted: list[Unlisted] = field(default_factory=list)

    def count(self, kind: str, number: int) -> None:
        """Add to the count of files of a kind that were passed over."""
        if number:
            self.passed_over[kind] = self.passed_over.get(kind, 0) + number


def find_scans(
    paths: Sequence[Path], leave_out: Path | None = None, *, pictures: bool = False, go_on: bool = False
) -> Inventory:
    """Scans of the paths, folders recursively but for the folder ``leave_out``, in the order of their names.

    Hidden files and the stores of ``prepare`` below a folder are passed over, and without ``pictures`` PNG files in
    folders, which are pictures more often than scans. Raises UserError for a path that does not exist, and for a folder
    that cannot be listed; go_on: such a folder is kept in ``unlisted`` instead.
    """
    found = Inventory()
    entries: list[_Entry] = []
    for root in paths:
        if not root.exists():
            raise UserError(f"{root}: does not exist, expected a scan or a folder of scans")
        if not root.is_dir():
            entries.append((root, (root,), root, "file"))
            continue
        stores: set[Path] = set()
        for folder, files in folders_under(root, leave_out, found.unlisted if go_on else None):
            if folder != root and (is_store(folder) or not stores.isdisjoint(folder.parents)):
                stores.add(folder)
                continue
            shown = [file for file in files if not file.name.startswith(".")]
            entries += _of_folder(folder, shown, root, found, pictures)
    return _with_units(found, entries)


def group_files(files: Iterable[Path]) -> Inventory:
    """Scans of single files, in the order of their folders: DICOM files of one folder are listed together."""
    found = Inventory()
    entries: list[_Entry] = []
    ordered = sorted(set(files), key=lambda file: (file.parent, file.name))
    for folder, here in groupby(ordered, lambda file: file.parent):
        entries += _of_folder(folder, list(here), folder, found, pictures=True)
    return _with_units(found, entries)


def _of_folder(
    folder: Path, files: Sequence[Path], root: Path, found: Inventory, pictures: bool = False
) -> Iterator[_Entry]:
    """The units of some files of one folder; what is no scan is counted, PNG files too if not ``pictures``."""
    dicom, unknown = [], []
    for file in files:
        kind = _kind(file)
        if kind == "dicom":
            dicom.append(file)
        elif kind is None and named_as_scan(file):
            yield file, (file,), root, "file"  # damaged: reported where it is read
        elif kind is None and not is_data_file(file):
            unknown.append(file)
        elif kind == "png" and not pictures:
            found.count("PNG files", 1)
        elif kind is not None and not is_data_file(file):
            yield file, (file,), root, kind
    endings = {file.suffix for file in dicom}
    broken = [file for file in unknown if is_broken(ScanFile(file.name, file), endings)]
    found.count("other files", len(unknown) - len(broken))
    dicom += broken  # reported where the series is listed
    if dicom:
        yield folder, tuple(dicom), root, "series"


def _with_units(found: Inventory, entries: Sequence[_Entry]) -> Inventory:
    """The inventory with a unit for each entry, of those with the same files one."""
    seen: set[tuple[Path, ...]] = set()
    people = patient_names([entry[0] for entry in entries])
    for (path, files, root, kind), person in zip(entries, people, strict=True):
        key = tuple(file.resolve() for file in files)
        if key in seen:
            continue
        seen.add(key)
        person = patch_patient(root, path) if kind == "hdf5" else person
        inside = str(path.relative_to(root)) if path != root else path.name
        found.units.append(Unit(files, str(path), person, inside, kind == "series"))
    return found


def named_as_scan(file: Path) -> bool:
    """Whether the ending is one of scans alone: not of pictures, or of voxels that have a header beside them."""
    return format_of_ending(file) not in (None, "png") and not is_data_file(file)


def _kind(file: Path) -> str | None:
    """The format of a file by its content ("dicom", "nifti" ...); None for other and unreadable files."""
    try:
        return detect(ScanFile(file.name, file))
    except UserError:
        return None
