"""One table, and the ways to write it: as CSV and as LaTeX; commands print it, a report shows it."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field
from itertools import groupby

from cdm4mi.evaluation.metrics import NONE, shown
from cdm4mi.evaluation.statistics import Mean

OUTSIDE = "†"


@dataclass(frozen=True)
class Cell:
    """text: as shown. value: to sort by and for CSV. strong: the best of its column. low, high: its interval, with
    ``between`` as shown."""

    text: str
    value: float | str = ""
    strong: bool = False
    low: float = NONE
    high: float = NONE
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
    """note: what stands beneath. slug: of its files. folded: shown in a page on a click alone."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""
    slug: str = ""
    folded: bool = False

    @property
    def spans(self) -> list[tuple[str, list[tuple[int, Column]]]]:
        """Neighbouring columns of one group, each with its number."""
        numbered = groupby(enumerate(self.columns), key=lambda numbered: numbered[1].group)
        return [(group, list(members)) for group, members in numbered]

    @property
    def textual(self) -> list[bool]:
        """Whether a column holds text alone."""
        return [all(isinstance(row[k].value, str) for row in self.rows) for k in range(len(self.columns))]


def figure(mean: Mean, metric: str, mark: str = "", strong: bool = False) -> Cell:
    """A mean and its interval, with the metric's digits."""
    text = shown(mean.value, metric) + ("" if math.isnan(mean.value) else mark)
    between = "" if math.isnan(mean.low) else f"[{shown(mean.low, metric)}, {shown(mean.high, metric)}]"
    return Cell(text, mean.value, strong, mean.low, mean.high, between)


def text_cell(text: str) -> str:
    """A cell of text in a CSV file, which a spreadsheet that opens it does not take for a formula."""
    if text[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def as_csv(table: Table) -> str:
    """The table with full digits, the ends of an interval in columns of their own; the first line is its note."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if table.note:
        file.write(f"# {table.note}\n")
    wide = [any(not math.isnan(cell.low) for cell in column) for column in zip(*table.rows, strict=True)]
    heads = zip([text_cell(c.whole) for c in table.columns], wide or [False] * len(table.columns), strict=True)
    writer.writerow([head for c, w in heads for head in (c, *((f"{c}, low", f"{c}, high") if w else ()))])
    for row in table.rows:
        written: list[str] = []
        for cell, w in zip(row, wide, strict=True):
            written.append(text_cell(cell.text) if isinstance(cell.value, str) else format(cell.value, ".6g"))
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
        spans = [(group, len(members)) for group, members in table.spans]
        first = [rf"\multicolumn{{{n}}}{{c}}{{{_tex(group)}}}" if group else " & " * (n - 1) for group, n in spans]
        lines.append(" & ".join(first) + r" \\")
    lines += [" & ".join(_tex(column.name) for column in columns) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex_cell, row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{_tex(cell.text)}}}" if cell.strong else _tex(cell.text)
    return text + (rf" {{\scriptsize {_tex(cell.between)}}}" if cell.between else "")


def _tex(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, {"\\": r"\textbackslash "}.get(character, "\\" + character))
    return text.replace(OUTSIDE, r"$\dagger$").replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")
