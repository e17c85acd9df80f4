"""``cdm4mi inspect``: what a scan or a trained model is, as the other commands will see it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_ENDINGS = (".ckpt", ".safetensors")


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A scan (a file, a folder, a DICOMDIR or a zip) or a model (.ckpt, .safetensors).")
    ],
    series: Annotated[
        int | None, typer.Option(help="Number of the series to look into, where there are several.")
    ] = None,
) -> None:
    """Show what a scan or a model is: format, geometry, values, or network, schedule, training."""
    if path.suffix.lower() in MODEL_ENDINGS:
        inspect_model(path)
    else:
        inspect_scan(path, series)


def inspect_scan(path: Path, series: int | None) -> None:
    """Print the scans of a path, and the facts of the one that is chosen."""
    from rich.console import Console

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
        _print_facts(console, found.facts)
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False)


def inspect_model(path: Path) -> None:
    """Print the facts of a model; names of training patients are counted, not shown."""
    from rich.console import Console

    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.models.facts import facts_of

    model = load_model(path)
    console = Console(highlight=False)
    _print_facts(console, facts_of(model))
    for notice in model.notices:
        console.print(f"notice: {notice}", markup=False)


def _print_facts(console, facts):
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(f"{name:<{width}}  {value}", markup=False, soft_wrap=True)
