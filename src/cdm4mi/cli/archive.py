"""The part of ``cdm4mi denoise`` that is about many scans: what is one, the progress, and the lines at the end."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from cdm4mi.cli.options import with_options
from cdm4mi.cli.terminal import echo
from cdm4mi.errors import Refused, UserError, counted

if TYPE_CHECKING:
    from cdm4mi.archive.restore import Job
    from cdm4mi.archive.run import Spread
    from cdm4mi.archive.series import Archive
    from cdm4mi.archive.table import Row

_LOGGED_EVERY = 60
"""Seconds between two lines on the progress, where there is no terminal to draw a bar on."""


def spread_of(workers: int | None, scheduler: str | None, shard: str | None) -> Spread | None:
    """How many scans are spread, by the options of it; None where none of these is given."""
    from cdm4mi.archive.run import Spread

    if workers is None and scheduler is None and shard is None:
        return None
    part = None
    if shard is not None:
        found = re.fullmatch(r"(\d+)/(\d+)", shard)
        if found is None:
            raise UserError(field="shard", found=shard, expected="i/n with i from 1 to n, such as 3/8")
        part = int(found[1]), int(found[2])
    return Spread(workers or 1, scheduler, part)


def archive_at(source: Path, out: Path, of_one_scan: dict[str, Any], spread: Spread | None) -> Archive | None:
    """The scans of IN; None where it is one scan. of_one_scan: options by name that only one scan can have."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from cdm4mi.archive.find import find_archive

    given = [name for name, value in of_one_scan.items() if value]
    if "series" in given and spread is None:
        return None
    console = Console(stderr=True)
    columns = (TextColumn("looking for scans"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("looking", total=None)
        archive = find_archive(
            source, out, spread is not None, lambda done, total: bar.update(task, completed=done, total=total)
        )
    alone = source.is_file() and archive is not None and [one.source for one in archive.series] == [str(source)]
    if alone and spread is not None:
        expected = "many scans: a folder, a pattern in quotes, a CSV or a BIDS dataset"
        raise UserError(field=spread.given, found=f"given for one scan, {source}", expected=expected)
    if archive is not None and given:
        many = counted(len(archive.series), "scan")
        raise UserError(field=given[0], found=f"given for {many} of {source}", expected="one scan")
    return archive


def denoise_archive(archive: Archive, job: Job, spread: Spread | None) -> None:
    """Restore an archive, or a part of it; what has failed is printed, and ends in exit code 1."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.archive.run import Spread, restore_archive
    from cdm4mi.trust.record import Colour

    spread = spread or Spread()
    if spread.shard is not None:
        archive = archive.shard(*spread.shard)
    if job.deidentify:
        echo("warning: names of files and folders are kept: see to it that none names a patient", err=True)
    verdicts: Counter[str] = Counter()
    total, began, logged = len(archive.series) + len(archive.problems), time.monotonic(), time.monotonic()
    console = Console(stderr=True)
    columns = (TextColumn("restoring"), BarColumn(), MofNCompleteColumn(), TextColumn("scans"), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("restoring", total=total)
        done = 0

        def ended(row: Row) -> None:
            nonlocal done, logged
            done += 1
            verdicts.update([row.verdict] if row.verdict else [])
            bar.advance(task)
            if row.status == "failed":
                echo(f"not restored: {row.input}: {with_options(row.message)}", err=True)
            now = time.monotonic()
            if not console.is_terminal and now - logged > _LOGGED_EVERY:
                logged = now
                left = (now - began) / done * (total - done) / 60
                echo(f"{done} of {total} scans, about {left:.0f} min left", err=True)

        counts = restore_archive(archive, job, spread, ended)
    kept = f", {counts['kept']} there already" if counts["kept"] else ""
    passed = f", {counts['passed']} passed over" if counts["passed"] else ""
    echo(f"{job.out}: {counted(counts['restored'], 'scan')} restored{kept}{passed}; table {job.out / spread.table}")
    if verdicts:
        found = ", ".join(f"{verdicts[colour]} {colour}" for colour in get_args(Colour) if verdicts[colour])
        echo(f"verdicts: {found}" + (f"; reports in {job.reports}" if job.reports else "") + " (not for clinical use)")
    if archive.others:
        held = ", ".join(f"{number} {kind}" for kind, number in sorted(archive.others.items()))
        echo(f"no scans: {held}")
    if counts["failed"]:
        echo(f"error: {counted(counts['failed'], 'scan')} of {total} could not be restored", err=True)
        raise typer.Exit(1)
    if job.strict and verdicts["bad"]:
        raise typer.Exit(Refused.code)
