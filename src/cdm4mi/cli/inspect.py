"""``cdm4mi inspect``: what a scan, a trained model or a store is, as the other commands will see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.choices import BEST_OF_RUN
from cdm4mi.cli.terminal import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL_ENDINGS = (".ckpt", ".safetensors")


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

    if path.suffix.lower() in MODEL_ENDINGS or any((path / best).is_file() for best in BEST_OF_RUN):
        inspect_model(path)
    elif is_store(path):
        inspect_store(path)
    else:
        inspect_scan(path, series)


def inspect_scan(path: Path, series: int | None) -> None:
    """Print the scans of a path, and the facts of the one that is chosen."""
    from cdm4mi.io import describe

    found = describe(path, series)
    if len(found.listing.scans) > 1:
        echo(f"{len(found.listing.scans)} scans; choose one by its number with --series:")
        for scan in found.listing.scans:
            echo(f"  {scan.line()}")
    if counted := found.listing.counted():
        echo(f"passed over: {counted}")
    if found.facts:
        _print_facts(found.facts)
    for warning in found.warnings:
        echo(f"warning: {warning}")


def inspect_model(path: Path) -> None:
    """Print the facts of a model; names of training patients are counted, not shown."""
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.models.facts import facts_of

    model = load_model(path)
    _print_facts(facts_of(model))
    for notice in model.notices:
        echo(f"notice: {notice}")


def inspect_store(path: Path) -> None:
    """Print the facts of a store, and what is irregular in its scans."""
    from cdm4mi.data.manifest import facts_of, read_manifest, size_of

    store, manifest = read_manifest(path)
    _print_facts(facts_of(manifest, size_of(store)))
    for scan in manifest.scans:
        for warning in scan.warnings:
            echo(f"warning: {scan.patient}, {scan.source}: {warning}")


def _print_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        echo(f"{name:<{width}}  {value}")
