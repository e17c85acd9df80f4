"""``cdm4mi evaluate PRED REF``: how close restored scans are to their references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    pred: Annotated[Path, typer.Argument(help="restored scan, or a folder of scans")],
    ref: Annotated[Path, typer.Argument(help="reference scan, or a folder of scans with the same names")],
    noisy: Annotated[
        Path | None, typer.Option(help="noisy input: its scores, and those of its non-local means, stand beside")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="window to judge in, physical units (default: -1000 1000 for CT, else percentiles of the reference)",
        ),
    ] = None,
    mask: Annotated[
        bool | None,
        typer.Option("--mask/--no-mask", help="only inside the body, or only the whole image (default: both)"),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="write the scores of every slice here")] = None,
) -> None:
    """Print PSNR, SSIM and mean absolute error of restored scans against their references.

    Means are over the slices of a scan first, then over scans.
    """
    from rich.console import Console
    from rich.progress import Progress

    from cdm4mi import io
    from cdm4mi.evaluation import compare as judge

    regions = (judge.WHOLE, judge.BODY) if mask is None else (judge.BODY,) if mask else (judge.WHOLE,)
    rows: list[judge.Row] = []
    windows: dict[str, judge.Window] = {}
    units: set[str] = set()
    clipped = []
    others = (ref,) if noisy is None else (ref, noisy)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        for name, paths in judge.pair_scans(pred, *others):
            task = bar.add_task(name)
            prediction, reference, *rest = (io.read(path) for path in paths)
            windows[name] = judge.window_for(reference, window)
            clipped.append(windows[name].outside(reference.array))
            units.add(reference.units or ("HU" if judge.is_ct(reference) else "scanner units"))
            rows += judge.compare(
                name,
                prediction,
                reference,
                rest[0] if rest else None,
                windows[name],
                regions,
                lambda done, total, task=task: bar.update(task, completed=done, total=total),  # type: ignore[misc]
            )
            bar.remove_task(task)
    unit = units.pop() if len(units) == 1 else "mixed units"
    console = Console()
    console.print(_table(judge.summary(rows), regions, unit))
    for line in _protocol(list(windows.values()), unit, sum(clipped) / len(clipped), rows):
        console.print(line, highlight=False, soft_wrap=True)
    if csv is not None:
        judge.write_csv(csv, rows, windows)
        console.print(f"Every slice: {csv}", highlight=False, soft_wrap=True)


def _table(means, regions, unit):
    from rich.table import Table

    table = Table()
    table.add_column("")
    for region in regions:
        for title in ("PSNR dB", "SSIM", f"MAE {unit}"):
            table.add_column(f"{region}\n{title}", justify="right")
    for method in dict.fromkeys(method for method, _ in means):
        cells = []
        for region in regions:
            scores = means[method, region]
            cells += [f"{scores['psnr']:.2f}", f"{scores['ssim']:.4f}", f"{scores['mae']:.4g}"]
        table.add_row(method, *cells)
    return table


def _protocol(windows, unit, clipped, rows):
    """What a reader must know to compare these figures with others."""
    whys = ", ".join(dict.fromkeys(window.why for window in windows))
    spans = list(dict.fromkeys((window.low, window.high) for window in windows))
    if len(spans) == 1:
        low, high = spans[0]
        yield f"Range: {low:g} to {high:g} {unit}, {high - low:g} wide ({whys})."
    else:
        widths = [high - low for low, high in spans]
        yield f"Range: one for each scan, {min(widths):g} to {max(widths):g} {unit} wide ({whys})."
    yield f"Both images are clipped to the range ({100 * clipped:.2g} % of the reference lies outside)."
    slices = len({(row.scan, row.slice) for row in rows})
    yield "SSIM: Gaussian window 11 x 11, sigma 1.5."
    yield f"Mean over the {slices} slice(s) that show a body, by scan, then over {len(windows)} scan(s)."
