"""One table, and the three ways to write it: HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import html
import io
from dataclasses import dataclass, field
from itertools import groupby

from cdm4mi.evaluation.report.record import NAN, known

OUTSIDE = "†"


@dataclass(frozen=True)
class Cell:
    """text: as shown. value: to sort by and for CSV. strong: the best of its column. low, high: its interval, with
    ``between`` as shown."""

    text: str
    value: float | str = ""
    strong: bool = False
    low: float = NAN
    high: float = NAN
    between: str = ""


@dataclass(frozen=True)
class Column:
    """name: of one column. group: a heading that neighbours share, or ""."""

    name: str
    group: str = ""

    @property
    def whole(self) -> str:
        """Both, where one line has to do."""
        return f"{self.group}: {self.name}" if self.group else self.name


@dataclass
class Table:
    """slug: of its files. note: what stands beneath. folded: shown in the page on a click alone."""

    slug: str
    title: str
    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""
    folded: bool = False


def as_html(table: Table) -> str:
    """A table whose columns are sorted by a click on their heading."""
    textual = [all(isinstance(cell.value, str) for cell in column) for column in zip(*table.rows, strict=True)]
    upper, lower, place = [], [], 0
    for group, members in groupby(table.columns, key=lambda column: column.group):
        names = [column.name for column in members]
        heads = [
            f'<th scope="col" data-n="{place + k}"{_span(group)}{_class(textual[place + k : place + k + 1])}>'
            f"{html.escape(name)}</th>"
            for k, name in enumerate(names)
        ]
        place += len(names)
        if group:
            upper.append(f'<th scope="colgroup" colspan="{len(names)}">{html.escape(group)}</th>')
            lower += heads
        else:
            upper += heads
    second = f"<tr>{''.join(lower)}</tr>" if lower else ""
    body = "".join(f"<tr>{''.join(map(_td, row, textual))}</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    title = html.escape(table.title)
    whole = (
        f'<div class="wide"><table class="sortable"><thead><tr>{"".join(upper)}</tr>{second}</thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )
    if table.folded:
        return f"<details><summary>{title} ({len(table.rows)} rows)</summary>{whole}</details>"
    return f"<h3>{title}</h3>{whole}"


def as_csv(table: Table) -> str:
    """The table with full digits, the ends of an interval in columns of their own; the first line is its note."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if table.note:
        file.write(f"# {table.note}\n")
    wide = [any(known(cell.low) for cell in column) for column in zip(*table.rows, strict=True)]
    heads = zip(table.columns, wide or [False] * len(table.columns), strict=True)
    writer.writerow(
        [head for c, w in heads for head in (c.whole, *((f"{c.whole}, low", f"{c.whole}, high") if w else ()))]
    )
    for row in table.rows:
        written: list[str] = []
        for cell, w in zip(row, wide, strict=True):
            written.append(cell.text if isinstance(cell.value, str) else format(cell.value, ".6g"))
            written += [format(end, ".6g") for end in (cell.low, cell.high)] if w else []
        writer.writerow(written)
    return file.getvalue()


def as_latex(table: Table) -> str:
    """The table for a paper (package booktabs)."""
    columns = table.columns
    lines = [
        f"% {table.title}. {table.note}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
    ]
    if any(column.group for column in columns):
        spans = [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]
        first = [rf"\multicolumn{{{n}}}{{c}}{{{_tex(group)}}}" if group else " & " * (n - 1) for group, n in spans]
        lines.append(" & ".join(first) + r" \\")
    lines += [" & ".join(_tex(column.name) for column in columns) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex_cell, row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _span(group: str) -> str:
    return "" if group else ' rowspan="2"'


def _class(textual: list[bool]) -> str:
    return ' class="t"' if textual == [True] else ""


def _td(cell: Cell, textual: bool) -> str:
    key = html.escape(str(cell.value if cell.value != "" else cell.text), quote=True)
    text = html.escape(cell.text)
    text = f"<b>{text}</b>" if cell.strong else text
    between = f"<small>{html.escape(cell.between)}</small>" if cell.between else ""
    return f'<td{" class=t" if textual else ""} data-v="{key}">{text}{between}</td>'


def _tex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{_tex(cell.text)}}}" if cell.strong else _tex(cell.text)
    return text + (rf" {{\scriptsize {_tex(cell.between)}}}" if cell.between else "")


def _tex(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, {"\\": r"\textbackslash "}.get(character, "\\" + character))
    return text.replace(OUTSIDE, r"$\dagger$").replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")
