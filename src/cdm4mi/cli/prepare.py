"""``cdm4mi prepare SCANS... OUT``: read every scan once into a store to train from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.cli.options import with_options
from cdm4mi.cli.terminal import echo

if TYPE_CHECKING:
    from cdm4mi.data.prepare import Report
    from cdm4mi.data.tasks import Work


def prepare(
    scans: Annotated[
        list[Path] | None, typer.Argument(metavar="[SCANS]...", help="scans, or folders of them (recursively)")
    ] = None,
    # typer needs the ellipsis: required, though it comes after an optional argument
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the store")] = ...,  # type: ignore[assignment]
    pairs: Annotated[Path | None, typer.Option(help="real pairs: a CSV of lines noisy,clean")] = None,
    noisy: Annotated[Path | None, typer.Option(help="real pairs: folder of the noisy scans (with --clean)")] = None,
    clean: Annotated[Path | None, typer.Option(help="real pairs: folder of the clean scans (with --noisy)")] = None,
    split: Annotated[
        Path | None, typer.Option(help="a YAML or CSV file that gives each patient to train, val or test")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="share of the patients for validation (default: the store's, else 0.1)"),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="share of the patients kept for testing (default: the store's, else 0.1)"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="decides the split (default: the store's, else 0)")] = None,
    percentiles: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="MR, PET: of the foreground, for -1 and +1")
    ] = (0.0, 99.5),
    strict: Annotated[
        bool, typer.Option("--strict", help="fail where a scan is bad or a real pair out of line by half a voxel")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="take scans that are not named out of the store (else they stay)")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="scans at a time (default: by cores and memory)")] = None,
    licence: Annotated[str, typer.Option(help="a note on the data's licence, kept in the manifest")] = "",
) -> None:
    """Read scans into a store: slices in physical units, a manifest with the split by patient, and a training's plan.

    Run again, it goes on where it stopped, and adds what is new.
    """
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.data.prepare import SplitChoice
    from cdm4mi.data.prepare import prepare as run
    from cdm4mi.data.prepare_scan import Settings
    from cdm4mi.errors import UserError

    if split is not None and not split.is_file():
        raise UserError(f"--split: {split} does not exist, expected a YAML or CSV file")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise UserError(
            f"--percentiles: found {percentiles[0]:g} and {percentiles[1]:g}, expected 0 to 100, low below high"
        )
    started = time.monotonic()
    work = _work(scans or [], pairs, noisy, clean, out)
    console = Console(stderr=True)
    columns = (TextColumn("preparing"), BarColumn(), TextColumn("{task.completed}/{task.total} scans"))
    with Progress(
        *columns, TimeRemainingColumn(), transient=True, console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("preparing", total=len(work.tasks))
        report = run(
            work,
            out,
            SplitChoice(val_fraction, test_fraction, seed, split),
            settings=Settings(percentiles=percentiles),
            prune=prune,
            strict=strict,
            workers=workers,
            licence=licence,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for kind, count in sorted(work.passed_over.items()):
        echo(f"passed over: {count} {kind}")
    for warning in report.warnings:
        echo(f"warning: {warning}", err=True)
    planned = _plan(out) if report.manifest is not None else False
    _summary(out, report, time.monotonic() - started, planned)
    if report.bad:
        echo(f"not in the store, {len(report.bad)}:", err=True)
        for line in report.bad:
            echo(f"  {with_options(line)}", err=True)
    if strict and report.bad:
        echo("--strict: no manifest was written", err=True)
        raise typer.Exit(1)


def _work(scans: list[Path], pairs: Path | None, noisy: Path | None, clean: Path | None, out: Path) -> Work:
    """What is to be prepared, by the options that were given."""
    from cdm4mi.data import tasks
    from cdm4mi.data.real_pairs import read_pairs
    from cdm4mi.errors import UserError

    if (noisy is None) != (clean is None):
        raise UserError("--noisy, --clean: found one of them, expected both")
    ways = [bool(scans), pairs is not None, noisy is not None]
    if sum(ways) != 1:
        found = "nothing" if not any(ways) else "several"
        raise UserError(f"prepare: found {found} to read, expected one of SCANS, --pairs, or --noisy with --clean")
    if pairs is not None:
        return tasks.named_pairs(read_pairs(pairs), out)
    if noisy is not None and clean is not None:
        return tasks.paired_folders(noisy, clean, out)
    return tasks.all_scans(scans, out)


def _plan(out: Path) -> bool:
    """Write the plan of the store where there is none for it; whether it can be trained on as it is."""
    from cdm4mi.errors import UserError
    from cdm4mi.planning.plan_file import write_plan

    try:
        planned = write_plan(out)
    except UserError as error:  # a store of test patients, say, is a good store
        echo(f"no plan: {with_options(str(error))}", err=True)
        return False
    if planned.warning:
        echo(f"warning: {planned.warning}", err=True)
    if planned.plan is not None:
        echo(f"planned: {planned.plan.expected()}: {planned.path}")
    return True


def _summary(out: Path, report: Report, seconds: float, planned: bool) -> None:
    from cdm4mi.data.manifest import facts_of, size_of

    if report.manifest is None:
        return
    if not report.fresh and not report.changed and not report.removed:
        echo(f"{out}: nothing to do, it holds these {len(report.manifest.scans)} scans already")
        return
    facts = facts_of(report.manifest, size_of(out))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        echo(f"{name:<{width}}  {value}")
    there = len(report.manifest.scans) - report.fresh
    kept = f" ({report.kept} of them not named now: --prune takes such out)" if report.kept else ""
    removed = f", {report.removed} not named and removed" if report.removed else ""
    echo(f"{report.fresh} scan(s) prepared, {there} there already{kept}{removed}; {seconds:.0f} s")
    if planned:
        echo(f"next:  cdm4mi check {out}; cdm4mi train {out}")
