"""Tasks of ``prepare``: each scan of some paths, or each clean scan with its noisy ones. No voxel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdm4mi.data.inventory import Unit, find_scans
from cdm4mi.data.names import patient_names, pseudonym
from cdm4mi.errors import UserError


@dataclass(frozen=True)
class ScanEntry:
    """One scan of a unit, by its number in the listing; label: its name in messages; patient: a pseudonym."""

    unit: Unit
    number: int
    label: str
    patient: str


@dataclass(frozen=True)
class Task:
    """A scan to prepare; for real pairs the clean scan, with the noisy scans that may be its counterpart."""

    clean: ScanEntry
    noisy: tuple[ScanEntry, ...] = ()


@dataclass
class Work:
    """Tasks in a fixed order, a line for each unusable or unpaired scan, and counts of other files by kind.

    ``files`` are those that were found to hold scans; ``store`` is the folder of the store, where none are looked for.
    """

    tasks: list[Task] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    store: Path | None = None

    def entries(self, paths: Sequence[Path], person: str | None = None) -> list[ScanEntry]:
        """Every scan of the paths; ``person`` names the patient of a scan whose header does not."""
        found = find_scans(paths, self.store)
        self._count(found.passed_over)
        entries = []
        for unit in found.units:
            self.files += unit.files
            try:
                listing = unit.listing()
            except UserError as error:
                self.bad.append(str(error))
                continue
            if listing.unreadable:
                count, names = len(listing.unreadable), listing.unreadable_names()
                self.bad.append(f"{unit.label}: {count} DICOM file(s) are damaged or empty: {names}")
            self._count(listing.passed_over)
            for info in listing.scans:
                label = unit.label if len(listing.scans) == 1 else f"{unit.label} (scan {info.number})"
                patient = pseudonym(info.patient_id or person or unit.person)
                entries.append(ScanEntry(unit, info.number, label, patient))
        return entries

    def _count(self, passed_over: dict[str, int]) -> None:
        for kind, count in passed_over.items():
            self.passed_over[kind] = self.passed_over.get(kind, 0) + count


def all_scans(paths: Sequence[Path], store: Path) -> Work:
    """A task for every scan of the paths, folders recursively."""
    work = Work(store=store)
    work.tasks = [Task(entry) for entry in work.entries(paths)]
    return work


def paired_folders(noisy: Path, clean: Path, store: Path) -> Work:
    """A task for every clean scan of a folder, with the noisy scans of its patient.

    Where a patient has several noisy scans, the one under the same name inside its folder is meant, or else the one
    that lies where the clean one does.
    """
    work = Work(store=store)
    theirs, ours = work.entries([noisy]), work.entries([clean])
    by_patient: dict[str, list[ScanEntry]] = {}
    for entry in theirs:
        by_patient.setdefault(entry.patient, []).append(entry)
    for entry in ours:
        candidates = by_patient.get(entry.patient, [])
        same = [c for c in candidates if (c.unit.inside, c.number) == (entry.unit.inside, entry.number)]
        if candidates:
            work.tasks.append(Task(entry, tuple(same or candidates)))
        else:
            work.bad.append(
                f"{entry.label}: has no noisy scan of its patient in {noisy}, expected one (or give `pairs`)"
            )
    patients = {entry.patient for entry in ours}
    alone = [entry for entry in theirs if entry.patient not in patients]
    work.bad += [
        f"{p.label}: has no clean scan of its patient in {clean}, expected one (or give `pairs`)" for p in alone
    ]
    return work


def named_pairs(pairs: Sequence[tuple[Path, Path]], store: Path) -> Work:
    """A task for each (noisy, clean) pair of paths; each holds one scan."""
    work = Work(store=store)
    people = patient_names([clean for _, clean in pairs])
    for (noisy, clean), person in zip(pairs, people, strict=True):
        halves = []
        for path in (noisy, clean):
            problems = len(work.bad)
            found = work.entries([path], person)
            if len(found) == 1:
                halves.append(found[0])
            elif len(work.bad) == problems:
                work.bad.append(f"{path}: holds {len(found)} scans, expected one")
        if len(halves) == 2:
            work.tasks.append(Task(halves[1], (halves[0],)))
    return work
