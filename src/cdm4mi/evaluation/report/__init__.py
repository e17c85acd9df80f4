"""Report: a finished study as one HTML file that needs no network, and its tables as CSV and LaTeX."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.record import Record
from cdm4mi.evaluation.report.curves import curves
from cdm4mi.evaluation.report.panels import BAR, panels
from cdm4mi.evaluation.report.tables import stamp, tables, verdicts
from cdm4mi.evaluation.table import Table, as_csv, as_latex
from cdm4mi.files import replacing_file

PAGE, TABLES = "report.html", "tables"


def write_report(run: Path, out: Path | None = None) -> Path:
    """The report of a finished study: ``report.html`` in its folder, or ``out``, with a folder ``tables`` beside it.

    Raises UserError for a folder without a finished study.
    """
    target = out or run / PAGE
    if target.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{target}: expected the name of an .html file")
    record = Record(run)
    found = list(tables(record))
    with replacing_file(target) as temporary:
        temporary.write_text(page(record, found), encoding="utf-8")
    for table in found:
        for ending, written in ((".csv", as_csv(table)), (".tex", as_latex(table))):
            with replacing_file(target.parent / TABLES / f"{table.slug}{ending}") as temporary:
                temporary.write_text(written, encoding="utf-8")
    return target


def page(record: Record, found: list[Table]) -> str:
    """The whole page: tables, curves, pictures and provenance in one HTML text without a link to anything."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["indented"] = lambda value: json.dumps(value, indent=1)
    environment.filters["listed"] = _listed
    trained = [method for method in record.study.methods if method.configuration is not None]
    trained.sort(key=lambda method: method.family)
    text = environment.get_template("page.html").render(
        study=record.study,
        tables=found,
        verdicts=list(verdicts(record)),
        stamp=stamp(record, record.plotted[0]),
        curves=list(curves(record)),
        panels=list(panels(record)),
        bar=BAR,
        trainings=[list(members) for _, members in groupby(trained, key=lambda method: method.family)],
    )
    return text.strip() + "\n"


def _listed(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
