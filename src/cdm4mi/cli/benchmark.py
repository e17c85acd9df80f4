"""``cdm4mi benchmark CONFIG``: every method over every noise level on the same test patients."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.cli.terminal import echo, printable
from cdm4mi.files import below

if TYPE_CHECKING:
    from cdm4mi.evaluation.benchmark.config import BenchmarkConfig


def benchmark(
    config: Annotated[Path, typer.Argument(help="a YAML file: data, protocols, levels, methods (docs/evaluation.md)")],
    out: Annotated[Path | None, typer.Option(help="folder of the study (default: runs/NAME)")] = None,
) -> None:
    """Train what is missing, restore the test patients with every method at every noise level, and judge it all.

    Stopped at any moment it goes on where it was when called again. Writes scores as CSV and JSON, and report.html.
    """
    from cdm4mi.evaluation.benchmark.config import load_benchmark

    settings = load_benchmark(config)
    run_and_report(settings, out or below(Path("runs"), settings.name))


def run_and_report(settings: BenchmarkConfig, folder: Path) -> None:
    """Run a study with a progress bar, print its summary, and write its report."""
    import rich.progress as bars
    from rich.console import Console

    from cdm4mi.errors import Terminated
    from cdm4mi.evaluation.benchmark.record import Record
    from cdm4mi.evaluation.benchmark.run import run_benchmark
    from cdm4mi.evaluation.report import write_report
    from cdm4mi.evaluation.report.tables import stamp, verdicts

    errors = Console(stderr=True)
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    with bars.Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        shown = [""]

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=printable(what), completed=done, total=total or None)
            if not errors.is_terminal and what != shown[0]:  # a log of hours says where it is
                shown[0] = what
                echo(f"{what} ({done} of {total})" if total else what, err=True)

        try:
            run_benchmark(settings, folder, show, command=_command())
        except (KeyboardInterrupt, Terminated):
            echo(f"what is done is kept in {folder}: the same command goes on with it", err=True)
            raise
    page = write_report(folder)
    record = Record(folder)
    echo(stamp(record, record.plotted[0]))
    for line in verdicts(record):
        echo(line)
    echo(f"scores: {folder / 'scores'}")
    echo(f"report: {page}")


def _command() -> str:
    """The command line without the folders of its paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv]
    return shlex.join(words)
