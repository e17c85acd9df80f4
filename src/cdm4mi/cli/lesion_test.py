"""``cdm4mi lesion-test SCAN...``: what a model keeps of small faint lesions, and whether they are still seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.choices import EstimateName, ModalityName
from cdm4mi.cli.terminal import echo

RECORD, PICTURE = "lesion-test.json", "lesion-test.png"


def lesion_test(
    scans: Annotated[
        list[Path], typer.Argument(metavar="SCAN...", help="clean scans that the model was not trained on")
    ],
    model: Annotated[
        Path | None, typer.Option(help="a checkpoint or a run's folder (default: the shipped model)")
    ] = None,
    sizes: Annotated[str, typer.Option(help="diameters in pixels, or all with mm: 2.5mm,5mm")] = "5,7,10",
    contrasts: Annotated[
        str | None,
        typer.Option(
            help="in the scan's units, or all in percent of the intensity window: -3%,-6% "
            "(default: -20,-40,-60 HU of CT, -3%,-6%,-10% of others)"
        ),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            help="a type of cdm4mi noise with its keys, 'rician percent=5', or none for the scan as it is (repeat; "
            "default: CT at a quarter and a tenth of the dose, MR with Rician noise of 5 and 9 %)"
        ),
    ] = None,
    dose: Annotated[str | None, typer.Option(help="in place of --noise: low_dose_ct at these doses: 0.25,0.1")] = None,
    sphere: Annotated[bool, typer.Option("--sphere", help="balls over several slices, in place of discs")] = False,
    sites: Annotated[int, typer.Option(min=2, help="most lesions in a scan, all in its flattest slice")] = 12,
    repeats: Annotated[int, typer.Option(min=2, help="draws of noise")] = 6,
    estimate: Annotated[EstimateName | None, typer.Option(help="what the model returns (default: as it says)")] = None,
    steps: Annotated[int | None, typer.Option(help="network calls a sample")] = None,
    samples: Annotated[int | None, typer.Option(help="samples that mean-of-k averages")] = None,
    strength: Annotated[float | None, typer.Option(help="that of denoise, 0 to 1")] = None,
    seed: Annotated[int, typer.Option(min=0, help="decides noise and samples")] = 0,
    modality: Annotated[ModalityName | None, typer.Option(help="where the files do not say (NIfTI)")] = None,
    out: Annotated[Path, typer.Option(help=f"folder for {RECORD} and {PICTURE}")] = Path("lesion-test"),
    keep: Annotated[bool, typer.Option("--keep", help="keep what was found in the file of --model, for trust")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace results that exist")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
) -> None:
    """Put lesions into scans, add noise, restore, and measure what is left of them. Not for clinical use.

    The input and classical denoisers stand beside the model.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from cdm4mi.errors import UserError
    from cdm4mi.inference.settings import changed
    from cdm4mi.io import check_result
    from cdm4mi.lesions import lesion_test as run
    from cdm4mi.lesions.picture import draw_lesion_test
    from cdm4mi.lesions.printed import tables_of
    from cdm4mi.models.annotate import annotate
    from cdm4mi.models.checkpoint import load_model

    if keep and model is None:
        raise UserError("--keep: found without --model, expected both")
    if keep and strength is not None:
        raise UserError("--keep: found with --strength, expected one of them: the curve is of the model as it is")
    if dose is not None and noise:
        raise UserError("--dose: found with --noise, expected one of them")
    diameters, in_mm = _numbers("--sizes", sizes, "mm")
    values, in_percent = (None, False) if contrasts is None else _numbers("--contrasts", contrasts, "%")
    specs = noise or []
    if dose is not None:
        specs = [f"low_dose_ct dose={value:g}" for value in _numbers("--dose", dose, "")[0]]
    for result in (RECORD, PICTURE):
        check_result(out / result, force)
    trained = load_model(model)
    sampling = changed(trained.config.sampling, estimate=estimate, steps=steps, samples=samples, strength=strength)
    columns = (TextColumn("restoring"), BarColumn(), TextColumn("{task.completed}/{task.total} draws"))
    errors = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), transient=True, console=errors, disable=not errors.is_terminal)
    with bar:
        task = bar.add_task("restoring", total=None)
        test = run(
            scans,
            trained,
            sizes=diameters,
            in_mm=in_mm,
            contrasts=values,
            in_percent=in_percent,
            noises=specs,
            sphere=sphere,
            sites=sites,
            repeats=repeats,
            sampling=sampling,
            seed=seed,
            modality=modality,
            device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console = Console()
    for table in tables_of(test):
        drawn = Table(*map(escape, table.heads), box=SIMPLE)
        for row in table.rows:
            drawn.add_row(*map(escape, row))
        echo(table.title)
        console.print(drawn)
    echo(f"{test.model}, weights {test.weight_hash[:12]}; {test.sites} {test.shape}s of each kind, {repeats} draws")
    if any(cell.ideal_d is not None for cell in test.cells):
        echo("bound: d' of the best of all observers of the input, which no restoration can raise")
        echo("blobs: of at least half the contrast in 100 cm2 of tissue without lesions")
    echo("not for clinical use")
    test.write(out / RECORD)
    draw_lesion_test(test, out / PICTURE)
    echo(f"{out / RECORD}, {out / PICTURE}")
    if keep and model is not None:
        echo(f"kept in {annotate(model, lesions=test.curve())}")


def _numbers(option: str, text: str, unit: str) -> tuple[list[float], bool]:
    """Numbers of a list with commas, and whether all of them, in place of none, have the unit."""
    from cdm4mi.errors import UserError

    parts = [part.strip() for part in text.split(",")]
    with_unit = [bool(unit) and part.endswith(unit) for part in parts]
    try:
        numbers = [float(part.removesuffix(unit)) for part in parts]
    except ValueError:
        numbers = []
    if not numbers or any(with_unit) != all(with_unit) or any(abs(n) == float("inf") or n != n for n in numbers):
        expected = f"numbers with commas between{f', all or none of them in {unit}' if unit else ''}"
        raise UserError(f"{option}: found {text!r}, expected {expected}")
    return numbers, all(with_unit)
