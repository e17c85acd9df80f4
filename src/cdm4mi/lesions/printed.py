"""A lesion test as tables of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdm4mi.lesions.methods import INPUT
from cdm4mi.lesions.record import Cell, LesionTest, Score


@dataclass(frozen=True)
class Table:
    """title; headings; rows of cells."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def tables_of(test: LesionTest) -> list[Table]:
    """For each noise: d' of every method beside the bound, AUC and invented blobs, contrast kept and visibility."""
    found: list[Table] = []
    others = [name for name in test.methods if name != INPUT]
    for noise in dict.fromkeys(cell.noise for cell in test.cells):
        cells = [cell for cell in test.cells if cell.noise == noise]

        def add(what: str, heads: list[str], row: Callable[[Cell], list[str]], cells: list[Cell] = cells) -> None:
            title = f"{cells[0].noise} ({cells[0].sigma:.3g} {test.unit}): {what}"
            rows = [[f"{cell.size:.3g}", f"{cell.contrast:.3g}", *row(cell)] for cell in cells]
            found.append(Table(title, ["px", test.unit, *heads], rows))

        if cells[0].ideal_d is not None:
            heads = ["bound", *test.methods]
            add("d' (95 % interval)", heads, lambda cell: [f"{cell.ideal_d:.1f}", *map(_d, cell.scores.values())])
            heads = [f"{what} {name}" for what in ("AUC", "blobs") for name in test.methods]
            add("AUC, and blobs that are invented", heads, _auc_and_blobs)
        heads = [*(f"kept {name}" for name in others), *(f"visible {name}" for name in test.methods)]
        add("contrast that is kept, and visibility", heads, _kept_and_visibility)
    return found


def _auc_and_blobs(cell: Cell) -> list[str]:
    scores = cell.scores.values()
    return [*(f"{score.auc:.3f}" for score in scores), *(f"{score.invented:.1f}" for score in scores)]


def _kept_and_visibility(cell: Cell) -> list[str]:
    kept = [f"{round(100 * score.kept)} %" for name, score in cell.scores.items() if name != INPUT]
    return [*kept, *(f"{score.visibility:.2f}" for score in cell.scores.values())]


def _d(score: Score) -> str:
    if score.d is None or score.d_interval is None:
        return "-"
    return f"{score.d:.1f} ({score.d_interval[0]:.1f} to {score.d_interval[1]:.1f})"
