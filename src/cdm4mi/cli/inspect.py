"""``cdm4mi inspect``: what a scan, a trained model or a store is, as the other commands will see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

MODEL_ENDINGS = (".ckpt", ".safetensors")
RUN = Path("checkpoints") / "best.ckpt"


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A scan (a file, a folder, a DICOMDIR or a zip), a model (.ckpt, .safetensors, a run's folder) or a "
            "store of prepare."
        ),
    ],
    series: Annotated[
        int | None, typer.Option(help="Number of the series to look into, where there are several.")
    ] = None,
) -> None:
    """Show what a scan, a model or a store is: geometry and values; network and training; patients and splits."""
    from cdm4mi.data.manifest import is_store

    if path.suffix.lower() in MODEL_ENDINGS or (path / RUN).is_file():
        inspect_model(path)
    elif is_store(path):
        inspect_store(path)
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
            console.print(f"  {scan.line()}", markup=False, soft_wrap=True)
    if counted := found.listing.counted():
        console.print(f"passed over: {counted}", markup=False, soft_wrap=True)
    if found.facts:
        _print_facts(console, found.facts)
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def inspect_model(path: Path) -> None:
    """Print the facts of a model; names of training patients are counted, not shown."""
    from rich.console import Console

    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.models.facts import facts_of

    model = load_model(path)
    console = Console(highlight=False)
    _print_facts(console, facts_of(model))
    for notice in model.notices:
        console.print(f"notice: {notice}", markup=False, soft_wrap=True)


def inspect_store(path: Path) -> None:
    """Print the facts of a store, and what is irregular in its scans."""
    from rich.console import Console

    from cdm4mi.data.manifest import facts_of, read_manifest, size_of

    store, manifest = read_manifest(path)
    console = Console(highlight=False)
    _print_facts(console, facts_of(manifest, size_of(store)))
    for scan in manifest.scans:
        for warning in scan.warnings:
            console.print(f"warning: {scan.patient}, {scan.source}: {warning}", markup=False, soft_wrap=True)


def _print_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(f"{name:<{width}}  {value}", markup=False, soft_wrap=True)
