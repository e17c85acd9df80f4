"""``cdm4mi export MODEL OUT.onnx``: a model for programs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="the file that is written")],
    model: Annotated[
        Path | None, typer.Option(help="a checkpoint or a run's folder (default: the model that ships with cdm4mi)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
) -> None:
    """Write a model as an ONNX graph, checked against PyTorch (needs the extra onnx). Not for clinical use."""
    from cdm4mi.errors import UserError
    from cdm4mi.files import check_place, refuse_taken
    from cdm4mi.io import refuse_existing
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.models.export import export_onnx

    if out.suffix.lower() != ".onnx":
        raise UserError(f"{out}: expected a name that ends in .onnx")
    check_place(out)
    refuse_taken(out, folder=False)
    if not force:
        refuse_existing(out)
    described = export_onnx(load_model(model), out)
    echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    for name, meaning in described.items():
        echo(f"  {name}: {meaning}")
