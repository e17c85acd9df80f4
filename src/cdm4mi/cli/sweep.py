"""``cdm4mi sweep MODEL... DATA``: models over a range of noise levels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    models_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATA", help="checkpoints or folders of runs, or shipped; last: clean scans, or a store"
        ),
    ],
    protocol: Annotated[str, typer.Option(help="a name or a YAML file")] = "cdm4mi-mr-gaussian",
    noise: Annotated[str, typer.Option("--type", help="type of the noise")] = "gaussian",
    key: Annotated[
        str, typer.Option(help="the number that is swept, as variance, sigma_hu, percent, dose")
    ] = "variance",
    values: Annotated[str, typer.Option(help="its values")] = "0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.4",
    test: Annotated[
        list[str] | None, typer.Option(help="a test patient (repeat; default: all, or a store's own)")
    ] = None,
    slices: Annotated[int | None, typer.Option(help="so many of each scan (default: all)")] = None,
    crop: Annotated[int | None, typer.Option(help="side of a square in the middle of the body (default: all)")] = None,
    seed: Annotated[int, typer.Option(help="decides noise and samples")] = 0,
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("runs/sweep"),
) -> None:
    """Judge models over a range of noise levels; those outside a model's training are marked.

    Patients that a model was trained on are refused. Writes scores and report.html as cdm4mi benchmark does.
    """
    from cdm4mi.cli.benchmark import run_and_report
    from cdm4mi.errors import UserError
    from cdm4mi.evaluation.sweep import sweep_config

    *models, data = models_and_data
    if not models:
        raise UserError("sweep: found one argument, expected models and then the data")
    try:
        numbers = [float(value) for value in values.replace(",", " ").split()]
    except ValueError:
        raise UserError(f"--values: found {values!r}, expected numbers, as 0.01,0.05,0.1") from None
    config = sweep_config(models, Path(data), protocol, noise, key, numbers, test, slices, crop, seed)
    run_and_report(config, out)
