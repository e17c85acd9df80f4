"""``cdm4mi trust SCAN RESTORED``: what was taken away from a scan, and whether to trust what is left."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.choices import ModalityName
from cdm4mi.cli.options import with_options
from cdm4mi.cli.terminal import echo

if TYPE_CHECKING:
    from cdm4mi.trust.record import TrustReport


def print_report(report: TrustReport, paths: Sequence[Path] = ()) -> None:
    """Print the verdict, a line for each reason, and where the report was written."""
    echo(f"verdict: {report.verdict} (not for clinical use)")
    for reason in report.reasons:
        echo(f"{reason.colour}: {reason.text}")
    for line in filter(None, (report.intervals, report.lesions)):
        echo(line)
    if paths:
        echo(f"report: {', '.join(map(str, paths))}")


def trust(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="a scan: NIfTI, a DICOM file, a series' folder ...")],
    restored: Annotated[Path, typer.Argument(metavar="RESTORED", help="what was restored from it")],
    model: Annotated[
        Path | None, typer.Option(help="what restored it (default: the shipped model, where the record names it)")
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="a map of standard deviations for the page, as denoise --uncertainty writes it")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a folder for trust.json and the page trust.html")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit with code 3 where the verdict is bad or the model does not know it")
    ] = False,
    modality: Annotated[ModalityName | None, typer.Option(help="where the file does not say (NIfTI)")] = None,
    series: Annotated[int | None, typer.Option(help="which series, where SCAN holds several")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a report that exists")] = False,
) -> None:
    """Say what was taken away from a scan, and whether to trust the restored one. Not for clinical use."""
    from cdm4mi.errors import Refused, UserError, naming
    from cdm4mi.io import read
    from cdm4mi.io.arrays import arrays_in
    from cdm4mi.trust.report import record_beside, trust_report
    from cdm4mi.trust.written import check_report_place, write_report

    if uncertainty is not None and out is None:
        raise UserError("--uncertainty: found without --out, expected both")
    if out is not None:
        check_report_place(out, force)
    paths = [scan, restored, *([] if uncertainty is None else [uncertainty])]
    with arrays_in(Path(tempfile.gettempdir())):
        volumes = [read(path, series if path is scan else None) for path in paths]
        with naming("scan", scan.name), naming("restored", restored.name):
            report = trust_report(
                volumes[0], volumes[1], model=model, record=record_beside(restored), modality=modality
            )
        names = tuple(path.name or str(path) for path in paths)
        shown = None if uncertainty is None else volumes[2]
        written = () if out is None else write_report(report, out, volumes[0], volumes[1], shown, names)
    for warning in report.warnings:
        echo(f"warning: {with_options(warning)}", err=True)
    print_report(report, written)
    if report.model is None:
        echo("the model's training was not looked at: no record beside RESTORED names the shipped model (see --model)")
    if strict and report.refused:
        raise typer.Exit(Refused.code)
