"""``cdm4mi inspect``: what a scan is, as the other commands will see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[Path, typer.Argument(help="A scan: a file, a folder, a DICOMDIR or a zip.")],
    series: Annotated[
        int | None, typer.Option(help="Number of the series to look into, where there are several.")
    ] = None,
) -> None:
    """Show what a scan is: format, geometry, values, and what is irregular about it."""
    # Checkpoints (.ckpt, .safetensors) are told by their ending and go their own way here, before scans.
    inspect_scan(path, series)


def inspect_scan(path: Path, series: int | None) -> None:
    """Print the scans of a path, and the facts of the one that is chosen."""
    from rich.console import Console
    from rich.table import Table

    from cdm4mi.io import describe

    found = describe(path, series)
    console = Console(highlight=False)
    if len(found.listing.scans) > 1:
        console.print(f"{len(found.listing.scans)} scans; choose one by its number with --series:")
        for scan in found.listing.scans:
            console.print(f"  {scan.line()}", markup=False)
    if found.listing.passed_over:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(found.listing.passed_over.items()))
        console.print(f"passed over: {counted}", markup=False)
    if found.facts:
        table = Table(show_header=False, box=None)
        for name, value in found.facts:
            table.add_row(name, value)
        console.print(table)
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False)
