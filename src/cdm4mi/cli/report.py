"""``cdm4mi report RUN``: the report of a finished study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo


def report(
    run: Annotated[Path, typer.Argument(help="folder of a study by cdm4mi benchmark or cdm4mi sweep")],
    out: Annotated[Path | None, typer.Option(help="the page (default: report.html in the folder)")] = None,
) -> None:
    """Write one HTML file that opens without a network (tables, curves, pictures, provenance), and its tables.

    The tables are written as CSV and LaTeX too.
    """
    from cdm4mi.evaluation.report import write_report

    page = write_report(run, out)
    echo(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    echo(f"tables: {page.parent / 'tables'} (CSV, LaTeX)")
