"""Writes a report: the page, and each table as CSV and LaTeX beside it."""

from __future__ import annotations

from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.evaluation.report.page import page
from cdm4mi.evaluation.report.record import Record
from cdm4mi.evaluation.report.table import as_csv, as_latex
from cdm4mi.evaluation.report.tables import tables
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
    text = page(record, found)
    with replacing_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for table in found:
        for ending, written in ((".csv", as_csv(table)), (".tex", as_latex(table))):
            with replacing_file(target.parent / TABLES / f"{table.slug}{ending}") as temporary:
                temporary.write_text(written, encoding="utf-8")
    return target
