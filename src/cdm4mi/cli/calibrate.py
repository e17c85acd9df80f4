"""``cdm4mi calibrate CHECKPOINT``: make the uncertainty of a model's restorations mean what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint or a run's folder; the result is written into it")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings over the model's, as paths=/data")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="steps of a sample")] = None,
    samples: Annotated[int | None, typer.Option(help="samples whose spread is calibrated")] = None,
    patches: Annotated[int, typer.Option(min=4, help="how many noisy patches of the validation patients")] = 64,
    unread_slices: Annotated[
        bool,
        typer.Option(
            "--unread-slices",
            help="take also slices that data.slice_step left out of training patients, "
            "for modalities without a validation patient",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="decides patches and samples")] = 0,
) -> None:
    """Fit the uncertainty of a model on its validation patients and keep it in the checkpoint, for denoise to use."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cdm4mi.config.load import parse_config
    from cdm4mi.inference.calibrate import calibrate as fit
    from cdm4mi.inference.settings import changed
    from cdm4mi.locks import sole_writer
    from cdm4mi.models.annotate import annotate
    from cdm4mi.models.checkpoint import checkpoint_file, load_model
    from cdm4mi.models.facts import scan_bound_lines

    model = load_model(checkpoint)
    config = parse_config(model.config.model_dump(mode="json"), overrides or [], where=str(checkpoint))
    sampling = changed(config.sampling, estimate="mean-of-k", steps=steps, samples=samples)
    columns = (TextColumn("sampling"), BarColumn(), TextColumn("{task.completed}/{task.total} patches"))
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), transient=True, console=console, disable=not console.is_terminal)
    with sole_writer(checkpoint_file(checkpoint), "calibrate"):
        with bar:
            task = bar.add_task("sampling", total=None)
            result = fit(
                model,
                config,
                sampling,
                patches=patches,
                unread_slices=unread_slices,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        path = annotate(checkpoint, calibration=result)
    echo(f"90 % intervals cover {100 * result.coverage_before:.1f} % of the foreground before calibration,")
    echo(f"{100 * result.coverage_after:.1f} % after it, measured where the fit did not look:")
    for kind, its in result.kinds.items():
        fitted = f"scale {its.scale:.3g}, exponent {its.exponent:g}, power {its.bootstrap_power:g}, floor {its.floor:g}"
        echo(f"  {kind}: {100 * its.coverage:.1f} % ({its.measured_on}), {fitted}")
    for line in scan_bound_lines(result):
        echo(f"  {line}")
    smoothings = " or ".join(f"{pixels:g}" for pixels in sorted({its.smoothing for its in result.kinds.values()}))
    echo(
        "standard deviation: scale x (level / 0.1)^-exponent x (bootstrap ratio)^power x sqrt(spread^2 + (floor "
        f"level)^2), the noise level on [-1, 1], spread smoothed over {smoothings} pixels"
    )
    echo(f"written into {path}")
