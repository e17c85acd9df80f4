"""``cdm4mi steps CHECKPOINT DATA``: how many network calls a model needs, and of which solver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.cli.terminal import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cdm4mi.evaluation.steps import Row


def steps(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="a checkpoint or a run's folder")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="clean scans of patients that the model was not trained on")
    ],
    out: Annotated[Path, typer.Option(help="folder for steps.csv and steps.png")] = Path("steps"),
    write: Annotated[
        bool, typer.Option("--write", help="keep the chosen way in the checkpoint, for denoise to use")
    ] = False,
    samples: Annotated[int, typer.Option(min=2, help="noisy crops to restore, spread over the patients")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="decides crops, noise and samples")] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace results that exist")] = False,
) -> None:
    """Measure the quality of samples against network calls for the solvers that fit a model, and choose among them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.evaluation import steps as choice
    from cdm4mi.evaluation.steps_picture import quality_picture
    from cdm4mi.io import check_result
    from cdm4mi.models.about import StepsStudy
    from cdm4mi.models.annotate import annotate
    from cdm4mi.models.checkpoint import load_model

    table, picture = out / "steps.csv", out / "steps.png"
    for result in (table, picture):
        check_result(result, force)
    model = load_model(checkpoint)
    found = choice.held_out_crops(model, data, samples, seed)
    if found.left_out:
        echo(f"left out: {found.left_out} patient(s) whom the model was trained on", err=True)
    for notice in found.notices:
        echo(f"notice: {notice}", err=True)
    errors = Console(stderr=True)
    columns = (TextColumn("sampling"), BarColumn(), TextColumn("{task.completed}/{task.total} network calls"))
    with Progress(
        *columns, TimeRemainingColumn(), transient=True, console=errors, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        rows = choice.study(model, found.crops, seed, lambda done, total: bar.update(task, completed=done, total=total))
    chosen = choice.knee(rows)
    console = Console()
    console.print(_table(rows, chosen))
    levels = [crop.level for crop in found.crops]
    size = model.config.model.image_size
    for line in (
        f"One sample of each of {len(found.crops)} crops of {size} x {size} pixels, {found.patients} patient(s), on "
        f"[-1, 1]; means over a patient's crops, then over patients.",
        f"Noise: {model.config.data.noise.described()}; levels {min(levels):.3g} to {max(levels):.3g} on [-1, 1].",
        f"Chosen (*): {choice.RULE}.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    choice.write_csv(table, rows, chosen)
    quality_picture(picture, rows, chosen)
    echo(f"{table}, {picture}")
    if write:
        sampling = choice.as_default(model, chosen)
        study = StepsStudy(
            rule=choice.RULE,
            psnr=chosen.psnr,
            ssim=chosen.ssim,
            spectrum_error=chosen.spectrum_error,
            levels=(min(levels), max(levels)),
        )
        path = annotate(checkpoint, sampling, steps_study=study)
        echo(f"written into {path}: {chosen.name}, {chosen.calls} network call(s) a sample")
        if sampling.estimate == "mean":
            echo("its default estimate stays the mean, one call; --estimate sample or mean-of-k draw so")
        if model.about.calibration is not None:
            echo("its calibration was fitted on other samples: run cdm4mi calibrate again")


def _table(rows: Sequence[Row], chosen: Row) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("")
    for title in ("calls", "PSNR dB", "SSIM", "spectrum error dB", "s an image"):
        table.add_column(title, justify="right")
    last = None
    for row in rows:
        if last is not None and row.name != last:
            table.add_section()
        last = row.name
        cells = [
            f"{row.calls}",
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}",
            f"{row.spectrum_error:.2f}",
            f"{row.seconds:.3f}",
        ]
        mark = "* " if row is chosen else ""
        table.add_row(mark + row.name, *cells, style="bold" if row is chosen else None)
    return table
