"""Preparing a store: each scan into its file, in several processes, then the manifest with the split by patient."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from cdm4mi.data.manifest import (
    NAME,
    SCAN_FILE,
    SCANS,
    PreparedScan,
    distinct,
    is_store,
    make_manifest,
    read_manifest,
    shared_slices,
    write_manifest,
)
from cdm4mi.data.prepare_scan import LEAST_FOREGROUND, Outcome, Settings, prepare_scan
from cdm4mi.data.real_pairs import MOST_SHIFT
from cdm4mi.data.records import DrawnSplit, Manifest, StoreSettings
from cdm4mi.data.split import draw_split, given_split, read_split, refuse_leaks
from cdm4mi.data.store import read_record
from cdm4mi.data.tasks import Work, all_scans
from cdm4mi.errors import UserError
from cdm4mi.files import make_folder, remove_abandoned
from cdm4mi.io.formats import readable
from cdm4mi.locks import NAME as LOCK
from cdm4mi.locks import sole_run
from cdm4mi.workers import start_worker

MEMORY_A_WORKER = 3 * 2**30
"""Bytes that a large scan takes while it is prepared."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitChoice:
    """How patients are split: drawn by fractions, or as a file of the user says.

    None stands for the store's present setting, or in a new store for 0.1 (validation), 0.1 (test) and seed 0.
    """

    val_fraction: float | None = None
    test_fraction: float | None = None
    seed: int | None = None
    file: Path | None = None

    def drawn(self, before: DrawnSplit | None) -> DrawnSplit:
        """The settings of a drawn split; those that are None are taken from the earlier one."""
        chosen = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction, "seed": self.seed}
        usual = DrawnSplit(val_fraction=0.1, test_fraction=0.1, seed=0) if before is None else before
        how = usual.model_copy(update={name: value for name, value in chosen.items() if value is not None})
        if how.val_fraction + how.test_fraction >= 1:
            raise UserError(
                f"`val_fraction`, `test_fraction`: found {how.val_fraction:g} and {how.test_fraction:g}, "
                "expected a sum below 1"
            )
        return how


@dataclass
class Report:
    """What ``prepare`` did: the manifest (None: none was written, because ``strict`` met ``bad``), one line for each
    scan that is not in the store, how many were made now, were there and are not named (``kept``) or were taken away,
    and whether the manifest is new.
    """

    manifest: Manifest | None = None
    bad: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fresh: int = 0
    changed: bool = False
    kept: int = 0
    removed: int = 0


def prepare(
    work: Work | Sequence[str | Path],
    out: str | Path,
    split: SplitChoice | None = None,
    *,
    settings: Settings | None = None,
    prune: bool = False,
    strict: bool = False,
    workers: int | None = None,
    licence: str = "",
    progress: Progress | None = None,
) -> Report:
    """Add scans to the store in the folder ``out``: a file each, then the manifest. What is there is not redone.

    work: scans and folders of them, or what ``data.tasks`` makes of real pairs. workers: processes, by default as many
    as there are cores, scans and memory for; a script that uses several keeps its lines under
    ``if __name__ == "__main__":``, since each of them imports it.
    A scan that cannot be read, or (``strict``) a pair that is out of line by more than half a voxel, is in the
    report's ``bad``; ``strict`` then writes no manifest. Scans of the store that are not named stay in it, or
    (``prune``) are removed. Raises UserError where nothing is usable, the split leaks, ``out`` is no place for a store,
    or another run is at work in it.
    """
    split, settings = split or SplitChoice(), settings or Settings()
    out = Path(out)
    work = work if isinstance(work, Work) else all_scans([Path(path) for path in work], out)
    given = read_split(split.file) if split.file is not None else {}
    refuse_other_folders(out, work)
    with sole_run(out, "prepare"):
        report = Report(bad=list(work.bad))
        before = None if prune else earlier_manifest(out, work, settings, report)
        how = _how_to_split(split, before)
        scans = _read_scans(work, out, settings, strict, workers, progress, report)
        if strict and report.bad:
            return report
        if not scans:
            raise UserError(_no_scan(report.bad))
        named = {scan.patient for scan in scans}
        if before is not None:
            scans += _kept(out, before, scans, report)
        scans = distinct(scans)
        shared = shared_slices(scans)
        if not isinstance(how, DrawnSplit):
            chosen = _given(out, split.file, given, scans, named, before)
            refuse_leaks(chosen, shared)
        else:
            sources = {scan.patient: scan.record.source for scan in reversed(scans)}
            chosen = draw_split(sources, shared, how.val_fraction, how.test_fraction, how.seed)
        for (one, other), count in sorted(shared.items()):
            pixels = f"the pixel data of {count} slice(s)"
            report.warnings.append(f"{one} and {other} share {pixels}, and so are in one split")
        facts = StoreSettings(
            window_hu=settings.window, percentiles=settings.percentiles, least_foreground=LEAST_FOREGROUND, split=how
        )
        report.manifest = make_manifest(scans, chosen, facts, licence or (before.licence if before else ""))
        report.changed = write_manifest(out, report.manifest)
        if prune:
            stored = {scan.file for scan in scans}
            for file in sorted((out / SCANS).glob("*.h5")):
                if f"{SCANS}/{file.name}" not in stored and SCAN_FILE.fullmatch(file.name):
                    file.unlink()
                    report.removed += 1
        return report


def _read_scans(
    work: Work,
    out: Path,
    settings: Settings,
    strict: bool,
    workers: int | None,
    progress: Progress | None,
    report: Report,
) -> list[PreparedScan]:
    """The scans of ``work``, each prepared into its file; unreadable ones go into the report."""
    make_folder(out / SCANS)
    for folder in (out, out / SCANS):
        remove_abandoned(folder)
    scans: list[PreparedScan] = []
    for outcome in _outcomes(work, out, settings, workers, progress):
        if outcome.scan is None:
            report.bad.append(outcome.problem)
            continue
        report.fresh += outcome.fresh
        out_of_line = _out_of_line(outcome.scan)
        if out_of_line:
            (report.bad if strict else report.warnings).append(out_of_line)
        scans.append(outcome.scan)
    report.bad.sort()
    report.warnings.sort()
    return scans


def _no_scan(bad: Sequence[str]) -> str:
    """Why nothing is left to prepare, by the lines of the scans that are bad."""
    if not bad:
        return f"prepare: found no scan in what was given, expected {readable()}"
    return bad[0] if len(bad) == 1 else f"{bad[0]} (and {len(bad) - 1} more, and no usable scan)"


def _how_to_split(split: SplitChoice, before: Manifest | None) -> DrawnSplit | Literal["given"]:
    """ "given" where a file, or an earlier one of the store, names the split of each patient; else how it is drawn."""
    earlier = None if before is None else before.settings.split
    if split.file is not None or (earlier == "given" and split == SplitChoice()):
        return "given"
    return split.drawn(earlier if isinstance(earlier, DrawnSplit) else None)


def _given(
    out: Path,
    file: Path | None,
    given: Mapping[str, str],
    scans: Sequence[PreparedScan],
    named: set[str],
    before: Manifest | None,
) -> dict[str, str]:
    """The split of each patient by the user's file, or, for patients already in the store, by the earlier split."""
    labels = {scan.patient: scan.label for scan in scans}
    held: dict[str, str] = {} if before is None else {scan.patient: scan.split for scan in before.scans}
    if file is not None:
        return given_split(file, {name: held[name] for name in set(held) & set(labels) - named} | dict(given), labels)
    if new := sorted(set(labels) - set(held)):
        raise UserError(
            f"{out}: its split was given, and names none for {len(new)} new patient(s), first {new[0]} "
            f"({labels[new[0]]}); expected `split` with a file that does"
        )
    return {patient: held[patient] for patient in labels}


def earlier_manifest(out: Path, work: Work, settings: Settings, report: Report) -> Manifest | None:
    """The manifest of the store to which scans are added; None where there is none, or (a warning) an unreadable one.

    Raises UserError where new scans and those of the store cannot be in one store.
    """
    if not (out / NAME).is_file():
        return None
    try:
        _, manifest = read_manifest(out)
    except UserError as error:
        report.warnings.append(f"{error}: of the scans that it had, those that are not named now are left out")
        return None
    if not manifest.scans:
        return None
    percentiles = list(manifest.settings.percentiles)
    if list(settings.percentiles) != percentiles:
        raise UserError(
            f"percentiles: found {list(settings.percentiles)}, the store was prepared with {percentiles}, expected the "
            "same (`prune` makes a store of the named scans alone)"
        )
    pairs = any(task.noisy for task in work.tasks)
    if work.tasks and any((scan.pair is not None) != pairs for scan in manifest.scans):
        one, other = ("real pairs", "scans without") if pairs else ("scans without real pairs", "pairs")
        raise UserError(
            f"{out}: found {one} for a store of {other}, expected a store of their own (`prune` replaces what it holds)"
        )
    return manifest


def _kept(out: Path, manifest: Manifest, scans: Sequence[PreparedScan], report: Report) -> Iterator[PreparedScan]:
    """The scans of the manifest that are not among ``scans``, read from their files."""
    named = {scan.file for scan in scans}
    for entry in manifest.scans:
        if entry.file in named:
            continue
        record = read_record(out / entry.file)
        if record is None:
            report.bad.append(f"{entry.patient}: {entry.file} is damaged or gone, and its scan was not named")
            continue
        report.kept += 1
        yield PreparedScan(*record, entry.patient, entry.patient)


def default_workers(tasks: int) -> int:
    """Number of worker processes: limited by cores, tasks and free memory."""
    free: int = psutil.virtual_memory().available
    room = max(1, free // MEMORY_A_WORKER)
    return max(1, min(os.cpu_count() or 1, tasks, room))


def refuse_other_folders(out: Path, work: Work) -> None:
    """Raise UserError where ``out`` holds anything but a store, or a scan that is to be read."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder for the store")
    if out.is_dir() and not is_store(out):
        held = [path for folder in (out, out / SCANS) if folder.is_dir() for path in folder.iterdir()]
        ours = [SCAN_FILE.fullmatch(path.name) or path.name in (NAME, SCANS, LOCK) for path in held]
        if not all(ours):
            foreign = sorted(path.name for path, of_store in zip(held, ours, strict=True) if not of_store)
            raise UserError(f"{out}: holds {foreign[0]}, expected a new folder, or a store to bring up to date")
    target = out.resolve()
    inside = next((file for file in work.files if target in file.resolve().parents), None)
    if inside is not None:
        raise UserError(f"{out}: holds the scan {inside.name} that is to be read, expected a folder of its own")


def _outcomes(
    work: Work, out: Path, settings: Settings, workers: int | None, progress: Progress | None
) -> Iterator[Outcome]:
    """The outcome of each task as it is done, computed in this process where there is one worker."""
    tell = progress or (lambda done, total: None)
    total = len(work.tasks)
    count = min(workers or default_workers(total), max(1, total))
    tell(0, total)
    if count == 1:
        for done, task in enumerate(work.tasks, 1):
            yield prepare_scan(task, out, settings)
            tell(done, total)
        return
    # spawned, not forked: the readers' libraries hold threads and locks
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=start_worker)
    try:
        futures = [pool.submit(prepare_scan, task, out, settings) for task in work.tasks]
        for done, future in enumerate(as_completed(futures), 1):
            yield future.result()
            tell(done, total)
    except BrokenProcessPool:
        raise UserError(
            "a worker was ended from outside (out of memory?); try fewer `workers`, and in a script of your own 1, or "
            'its lines under if __name__ == "__main__":'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _out_of_line(scan: PreparedScan) -> str:
    pair = scan.record.pair
    if pair is None or pair.away <= MOST_SHIFT:
        return ""
    slices, rows, columns = pair.shift
    return (
        f"{scan.label}: the noisy scan lies {slices:g} slices, {rows:.2f} rows, {columns:.2f} columns away "
        f"from the clean one, expected at most {MOST_SHIFT:g}"
    )
