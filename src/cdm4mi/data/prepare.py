"""From scans to a store: each scan into its file, side by side; then the manifest with the split by patient."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

import psutil

from cdm4mi.data.manifest import (
    NAME,
    SCANS,
    PreparedScan,
    distinct,
    is_store,
    make_manifest,
    shared_slices,
    write_manifest,
)
from cdm4mi.data.prepare_scan import LEAST_FOREGROUND, Outcome, Settings, prepare_scan
from cdm4mi.data.real_pairs import MOST_SHIFT
from cdm4mi.data.records import DrawnSplit, Manifest, StoreSettings
from cdm4mi.data.split import draw_split, given_split, read_split, refuse_leaks
from cdm4mi.data.tasks import Work, all_scans
from cdm4mi.errors import UserError

MEMORY_A_WORKER = 3 * 2**30
"""Bytes that a large scan takes while it is prepared."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitChoice:
    """A split that is drawn by fractions of the patients, or (``file``) the user's."""

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    file: Path | None = None


@dataclass
class Report:
    """What ``prepare`` did: the manifest (None: none was written, because ``strict`` met ``bad``), one line for each
    scan that is not in the store, how many were made now, and whether the manifest is new.
    """

    manifest: Manifest | None = None
    bad: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fresh: int = 0
    changed: bool = False
    removed: int = 0


def prepare(
    work: Work | Sequence[str | Path],
    out: str | Path,
    split: SplitChoice | None = None,
    *,
    settings: Settings | None = None,
    strict: bool = False,
    workers: int | None = None,
    licence: str = "",
    progress: Progress | None = None,
) -> Report:
    """Make the folder ``out`` the store of these scans: a file each, then the manifest. What is there is not redone.

    work: scans and folders of them, or what ``data.tasks`` makes of real pairs. workers: processes, by default as many
    as there are cores, scans and memory for; a script that uses several keeps its lines under
    ``if __name__ == "__main__":``, since each of them imports it.
    A scan that cannot be read, or (``strict``) a pair that is out of line by more than half a voxel, is in the
    report's ``bad``; ``strict`` then writes no manifest. Files of scans that are no longer named are removed. Raises
    UserError where nothing is usable, the split leaks, or ``out`` is no place for a store.
    """
    split, settings = split or SplitChoice(), settings or Settings()
    out = Path(out)
    work = work if isinstance(work, Work) else all_scans([Path(path) for path in work], out)
    said = read_split(split.file) if split.file is not None else {}
    _make_store(out, work)
    report = Report(bad=list(work.bad))
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
    if strict and report.bad:
        return report
    if not scans:
        raise UserError(report.bad[0] if len(report.bad) == 1 else f"no usable scan; {len(report.bad)} are bad")
    scans = distinct(scans)
    shared = shared_slices(scans)
    if split.file is not None:
        chosen = given_split(split.file, said, {scan.patient: scan.label for scan in scans})
        refuse_leaks(chosen, shared)
        how: DrawnSplit | Literal["given"] = "given"
    else:
        sources = {scan.patient: scan.record.source for scan in reversed(scans)}
        chosen = draw_split(sources, shared, split.val_fraction, split.test_fraction, split.seed)
        how = DrawnSplit(val_fraction=split.val_fraction, test_fraction=split.test_fraction, seed=split.seed)
    for (one, other), count in sorted(shared.items()):
        report.warnings.append(f"{one} and {other} share the pixel data of {count} slice(s), and so are in one split")
    facts = StoreSettings(
        window_hu=settings.window, percentiles=settings.percentiles, least_foreground=LEAST_FOREGROUND, split=how
    )
    report.manifest = make_manifest(scans, chosen, facts, licence)
    report.changed = write_manifest(out, report.manifest)
    kept = {scan.file for scan in scans}
    for file in sorted((out / SCANS).glob("*.h5")):
        if f"{SCANS}/{file.name}" not in kept and _is_ours(file):
            file.unlink()
            report.removed += 1
    return report


def default_workers(tasks: int) -> int:
    """As many as there are cores, tasks, and memory for."""
    free: int = psutil.virtual_memory().available
    room = max(1, free // MEMORY_A_WORKER)
    return max(1, min(os.cpu_count() or 1, tasks, room))


def _make_store(out: Path, work: Work) -> None:
    """Make the folder, and clear what a killed run left half written; refuse a folder that is something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder for the store")
    if out.is_dir() and not is_store(out):
        held = [path for folder in (out, out / SCANS) if folder.is_dir() for path in folder.iterdir()]
        ours = [_is_ours(path) or path.name in (NAME, SCANS) for path in held]
        if not all(ours):
            foreign = sorted(path.name for path, own in zip(held, ours, strict=True) if not own)
            raise UserError(f"{out}: holds {foreign[0]}, expected a new folder, or a store to bring up to date")
    place = out.resolve()
    inside = next((file for file in work.files if place in file.resolve().parents), None)
    if inside is not None:
        raise UserError(f"{out}: holds the scan {inside.name} that is to be read, expected a folder of its own")
    try:
        (out / SCANS).mkdir(parents=True, exist_ok=True)
        for folder in (out, out / SCANS):
            for leftover in folder.glob(".cdm4mi-*"):
                leftover.unlink()
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}), expected a folder that can") from None


def _is_ours(file: Path) -> bool:
    """Whether a file has the name of a scan's file in a store, or of one that is being written."""
    return file.name.startswith(".cdm4mi-") or re.fullmatch(r"[0-9a-f]{24}\.h5", file.name) is not None


def _outcomes(
    work: Work, out: Path, settings: Settings, workers: int | None, progress: Progress | None
) -> Iterator[Outcome]:
    """What becomes of each task, as it is done; in this process where one worker is enough."""
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
    pool = ProcessPoolExecutor(count, context, initializer=_start_worker)
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


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # of the libraries that read: what matters of a scan is in its outcome
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _out_of_line(scan: PreparedScan) -> str:
    pair = scan.record.pair
    if pair is None or pair.away <= MOST_SHIFT:
        return ""
    slices, rows, columns = pair.shift
    return (
        f"{scan.label}: the noisy scan lies {slices:g} slices, {rows:.2f} rows, {columns:.2f} columns away "
        f"from the clean one, expected at most {MOST_SHIFT:g}"
    )
