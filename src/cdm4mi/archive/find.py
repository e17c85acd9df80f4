"""The scans of a folder tree, a pattern of paths, a CSV of paths or a BIDS dataset, each with a name for its output."""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from cdm4mi import io
from cdm4mi.archive import bids
from cdm4mi.archive.series import Archive, Series, unlisted
from cdm4mi.archive.table import Row
from cdm4mi.data.inventory import Inventory, Unit, find_scans, group_files
from cdm4mi.errors import UserError
from cdm4mi.io.formats import FORMATS, format_of_ending, readable
from cdm4mi.io.scan_file import ScanFile, ending

_LISTS = {".csv": ",", ".tsv": "\t"}
COLUMN = "path"
"""The column of a CSV that names the scans."""
Progress = Callable[[int, int], None]


def find_archive(source: Path, out: Path, always: bool = False, progress: Progress | None = None) -> Archive | None:
    """The scans of ``source``, whose outputs go into the folder ``out``; None where it is one scan.

    source: a folder, a file, a pattern (``/data/*/t1.nii.gz``), a CSV with the column ``path``, or a BIDS dataset. A
    folder or a file that is one scan (a DICOM series), or whose output would be a file, is no archive unless
    ``always``. progress: called with how many of the files and folders have been looked at. Raises UserError.
    """
    root = source
    if not source.exists() and glob.has_magic(str(source)):
        parts = source.parts
        root = Path(*parts[: next(n for n, part in enumerate(parts) if glob.has_magic(part))])
        inventory = _of_paths([Path(path) for path in sorted(glob.glob(str(source), recursive=True))], out)
        if not inventory.units:
            raise UserError(f"{source}: no scan has such a path, expected {readable()}")
    elif not source.exists():
        raise UserError(f"{source}: no such file or folder, expected a scan")
    elif bids.is_dataset(source):
        archive = bids.find(source)
        archive.refuse_place(root, out)
        return archive
    elif source.is_file() and source.suffix.lower() in _LISTS:
        paths = _listed(source)
        folder = Path(os.path.abspath(source.parent))
        root = folder if all(folder in path.parents for path in paths) else _common([path.parent for path in paths])
        inventory = _of_paths(paths, out)
        none = "does not exist, or its folder cannot be looked into"
        missing = [Row(str(path), "", "failed", none) for path in paths if not os.path.exists(path)]
        archive = _archive(inventory, root, progress)
        archive.problems = sorted([*archive.problems, *missing], key=lambda row: row.input)
        archive.refuse_place(source, out)
        return archive
    elif source.is_file():
        root, inventory = source.parent, Inventory([Unit((source,), str(source), "", source.name)])
    else:
        inventory = find_scans([source], None if out.resolve() == source.resolve() else out, go_on=True)
        for error in inventory.unlisted:
            if error.folder == source:
                raise error
    if source.exists() and not always and _is_one_scan(source, out, inventory):
        return None
    archive = _archive(inventory, root, progress)
    if not (archive.series or archive.problems):
        held = ", ".join(f"{number} {kind}" for kind, number in sorted(archive.others.items())) or "no files"
        raise UserError(f"{source}: holds no scan ({held}), expected {readable()}")
    archive.refuse_place(source, out)
    return archive


def _is_one_scan(source: Path, out: Path, inventory: Inventory) -> bool:
    """Whether what is at ``source`` is restored as one scan, or refused as ``io.read`` refuses it."""
    units = inventory.units
    if not units or format_of_ending(out) is not None:
        return True
    if len(units) == 1:
        try:
            scans = units[0].listing().scans
        except UserError:
            return True
        return len(scans) == 1 and (source.is_file() or scans[0].kind == "dicom")
    if not all(unit.folder for unit in units):
        return False
    # a series whose files lie in several folders: two are looked at first, as an archive may have thousands
    return len(io.sort_files(units[0].files + units[1].files).scans) == 1 and len(io.list_scans(source).scans) == 1


def _of_paths(paths: Sequence[Path], out: Path) -> Inventory:
    """The inventory of files, and of folders with what is below them."""
    found = group_files(path for path in paths if os.path.isfile(path))  # False where its folder cannot be looked into
    below = find_scans([path for path in paths if os.path.isdir(path)], out, go_on=True)
    units = {unit.files: unit for unit in (*below.units, *found.units)}
    counts = Counter(found.passed_over) + Counter(below.passed_over)
    return Inventory([units[files] for files in sorted(units)], dict(counts), below.unlisted)


def _listed(file: Path) -> list[Path]:
    """The paths that a CSV names, from its folder. Raises UserError where it has no such column, or no path."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = csv.DictReader(opened, delimiter=_LISTS[file.suffix.lower()])
            columns = list(lines.fieldnames or [])
            if COLUMN not in columns:
                raise UserError(f"{file}: has the columns {', '.join(columns) or 'none'}, expected one named {COLUMN}")
            named = [text.strip() for line in lines if (text := line[COLUMN] or "").strip()]
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{file}: not a readable CSV, expected UTF-8 with a column named {COLUMN}") from None
    if not named:
        raise UserError(f"{file}: names no path, expected some in its column {COLUMN}")
    folder = Path(os.path.abspath(file.parent))
    return list(dict.fromkeys(Path(os.path.normpath(folder / name)) for name in named))


def _common(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        raise UserError("the paths lie on several drives, expected one") from None


def _archive(inventory: Inventory, root: Path, progress: Progress | None) -> Archive:
    """List every unit, and name the output of every scan by the unit's path below ``root``."""
    archive = Archive(others=Counter(inventory.passed_over), problems=unlisted(inventory.unlisted))
    listed: list[tuple[Unit, Path, list[io.ScanInfo]]] = []
    for done, unit in enumerate(inventory.units, 1):
        label = unit.label
        try:
            listing = io.sort_files(unit.files) if unit.folder else io.list_scans(unit.files[0])
        except UserError as error:
            if ending(unit.files[0]) == ".zip":
                archive.problems.append(Row(label, "", "passed", str(error)))
            elif _is_zip(unit.files[0]):  # a document
                archive.others["other files"] += 1
            else:
                archive.problems.append(Row(label, "", "failed", str(error).removeprefix(f"{unit.files[0].name}: ")))
            continue
        unreadable = "cannot be read (empty, damaged or something else)"
        archive.problems += [Row(str(Path(label, name)), "", "failed", unreadable) for name in listing.unreadable]
        archive.others.update(listing.passed_over)
        if listing.scans:
            listed.append((unit, Path(label).relative_to(root), listing.scans))
        if progress is not None:
            progress(done, len(inventory.units))
    archive.series = sorted(_named(listed), key=lambda series: (series.source, series.target))
    archive.problems.sort(key=lambda row: row.input)
    return archive


def _is_zip(file: Path) -> bool:
    try:
        return ScanFile(file.name, file).head(2) == b"PK"
    except UserError:
        return False


def _named(listed: Sequence[tuple[Unit, Path, list[io.ScanInfo]]]) -> list[Series]:
    """The scans with the names of their outputs: the paths below the archive are kept.

    A file keeps its path, and a folder that is one DICOM series and nothing else becomes a folder. Of several series in
    one, of one with other scans beside or below it, and of a zip, each is named by its series number in that folder.
    """
    held = Counter(path for _, base, _ in listed for path in (base, *base.parents))
    found, inside = [], []
    for unit, base, infos in listed:
        kind = infos[0].kind
        named = unit.folder and format_of_ending(base) is not None  # a folder that is called as a file
        if len(infos) > 1 or held[base] > 1 or not base.parts or ending(base) == ".zip" or named:
            inside += [(unit, base, info, infos) for info in infos]
        elif kind == "dicom" or format_of_ending(base) == kind:
            found.append(_series(unit, base, infos[0], infos))
        else:
            found.append(_series(unit, base.with_name(base.name + FORMATS[kind].endings[0]), infos[0], infos))
    taken = {str(path).casefold() for one in found for path in (Path(one.target), *Path(one.target).parents)}
    for unit, base, info, infos in inside:
        name = "series" if info.series_number is None else f"series-{info.series_number:03d}"
        end = "" if info.kind == "dicom" else FORMATS[info.kind].endings[0]
        names = (f"{name}{'' if n == 1 else f'-{n}'}{end}" for n in count(1))
        target = next(path for name in names if str(path := base / name).casefold() not in taken)
        taken.add(str(target).casefold())
        found.append(_series(unit, target, info, infos))
    return found


def _series(unit: Unit, target: Path, info: io.ScanInfo, infos: Sequence[io.ScanInfo]) -> Series:
    """One of the scans ``infos`` of a unit: with the files of its own, where these alone are read as the same scan."""
    files = Counter(path for one in infos for path in set(one.paths))
    apart = unit.folder and max(files.values()) == 1 and not info.mixed
    number = None if apart or len(infos) == 1 else info.number
    return Series(unit.label, target.as_posix(), info.paths if apart else unit.files, number, not unit.folder)
