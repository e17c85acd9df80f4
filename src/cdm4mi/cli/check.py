"""``cdm4mi check CONFIG_OR_STORE``: what is wrong with the data before a training finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.options import with_options
from cdm4mi.cli.terminal import echo


def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG_OR_STORE", help="a store, a YAML file or a preset's name")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings over the file's, as batch_size=4")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write the contact sheet here (.png)")] = None,
) -> None:
    """Look for mistakes in the data of a training, and say what to do. Exit code 1 when something is wrong."""
    from cdm4mi.errors import UserError
    from cdm4mi.planning.checks.run import check as run
    from cdm4mi.planning.settings import settings_of

    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"--out: found {out.name}, expected a name that ends with .png")
    found = run(settings_of(config, overrides or []), out)
    width = max(len(finding.name) for finding in found)
    for finding in found:
        echo(f"{finding.grade:<5}  {finding.name:<{width}}  {finding.message}")
        if finding.advice:
            echo(f"{'':<5}  {'':<{width}}  -> {with_options(finding.advice)}")
    wrong = sum(finding.grade == "wrong" for finding in found)
    if out is not None and out.exists():
        echo(f"contact sheet: {out}")
    echo(f"{wrong} wrong" if wrong else "nothing wrong")
    if wrong:
        raise typer.Exit(1)
