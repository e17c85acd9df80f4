"""``cdm4mi evaluate PRED REF``: how close restored scans are to their references."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.cli.terminal import echo, printable

if TYPE_CHECKING:
    from rich.table import Table

    from cdm4mi.evaluation.table import Table as Scores


def evaluate(
    pred: Annotated[Path, typer.Argument(help="restored scan, or a folder of scans")],
    ref: Annotated[Path, typer.Argument(help="reference scan, or a folder of scans with the same names")],
    protocol: Annotated[
        str | None,
        typer.Option(help="what the figures mean: a name or a YAML file (default: ct-1000 for CT, else percentiles)"),
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(help="noisy input: its scores, and those of its non-local means, stand beside")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", metavar="LOW HIGH", help="window to judge in, physical units, instead of the default protocol's"
        ),
    ] = None,
    mask: Annotated[
        bool | None,
        typer.Option("--mask/--no-mask", help="only inside the body, or only the whole image (default: protocol's)"),
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="standard deviations of PRED: coverage and width of intervals, CRPS")
    ] = None,
    sample: Annotated[
        list[Path] | None, typer.Option(help="a random sample that PRED is the mean of (repeat): the same from samples")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="write the scores of every slice, scan and patient here")] = None,
    json: Annotated[Path | None, typer.Option(help="write protocol, means, tests and all scores here")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files of scores that exist")] = False,
) -> None:
    """Print PSNR, SSIM, mean absolute error and more of restored scans against their references.

    Means are over the slices of a scan first, then over a patient's scans, then over patients.
    """
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from cdm4mi import io
    from cdm4mi.data.names import patient_names
    from cdm4mi.errors import UserError
    from cdm4mi.evaluation import choice, printed
    from cdm4mi.evaluation import compare as judge
    from cdm4mi.evaluation.aggregate import Row
    from cdm4mi.evaluation.resolve import ResolvedProtocol, resolve
    from cdm4mi.evaluation.study import study_of, write_csv, write_json

    if uncertainty is not None and sample:
        raise UserError("--sample: found with --uncertainty, expected one of them")
    for place in filter(None, (csv, json)):
        io.check_result(place, force)
    others = [path for path in (ref, noisy, uncertainty, *(sample or [])) if path is not None]
    scans = list(judge.pair_scans(pred, *others))
    patients = patient_names([paths[1] for _, paths in scans])
    rows: list[Row] = []
    resolved: dict[str, ResolvedProtocol] = {}
    clipped = []
    pick = choice.Choice(protocol, window, mask)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:

        def show(task: TaskID, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        for patient, (name, paths) in zip(patients, scans, strict=True):
            task = bar.add_task(printable(name))
            prediction, reference, *rest = (io.read(path) for path in paths)
            resolved[name] = resolve(pick.for_scan(reference, name), reference, name)
            clipped.append(resolved[name].outside(reference.array))
            rows += judge.compare(
                patient,
                name,
                prediction,
                reference,
                resolved[name],
                noisy=rest.pop(0) if noisy is not None else None,
                sd=rest.pop(0) if uncertainty is not None else None,
                samples=rest,
                progress=partial(show, task),
            )
            bar.remove_task(task)
    study = study_of(pick.protocol, rows, resolved, judge.PREDICTION)
    console = Console()
    for table in printed.tables(study):
        echo(table.title)
        console.print(_rich(table))
    for line in printed.caption(study, pick.protocol, [*resolved.values()], pick.why, sum(clipped) / len(clipped)):
        echo(line)
    for path, write in ((csv, write_csv), (json, write_json)):
        if path is not None:
            write(path, study)
            echo(f"Every score: {path}")


def _rich(table: Scores) -> Table:
    from rich.markup import escape
    from rich.table import Table

    drawn = Table()
    for number, column in enumerate(table.columns):
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        drawn.add_column(escape(printable(heading)), justify="right" if number else "left")
    for row in table.rows:
        drawn.add_row(*(escape(printable(f"{cell.text} {cell.between}".rstrip())) for cell in row))
    return drawn
