"""The picture of a lesion test: contrast kept and d' over the lesion's contrast, a panel a size, a line a method."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdm4mi.lesions.methods import INPUT
from cdm4mi.lesions.record import Cell, LesionTest
from cdm4mi.measure.plots import one_legend, save_png, styled

IDEAL = "bound: ideal observer of the input"


def draw_lesion_test(test: LesionTest, path: Path) -> None:
    """Two rows of panels for each noise: share of the contrast that is kept, and d' with its 95 % interval."""
    noises = list(dict.fromkeys(cell.noise for cell in test.cells))
    sizes = sorted({cell.size for cell in test.cells})
    rows = [(noise, what) for noise in noises for what in ("kept", "d") if what == "kept" or _seen(test, noise)]
    figure = Figure(figsize=(3.6 * max(len(sizes), 2), 2.9 * len(rows) + 1.1), layout="constrained")
    legend: Axes | None = None
    for number, (noise, what) in enumerate(rows):
        for column, size in enumerate(sizes):
            axes = figure.add_subplot(len(rows), len(sizes), number * len(sizes) + column + 1)
            styled(axes)
            cells = sorted(_of(test, noise, size), key=lambda cell: abs(cell.contrast))
            _kept(axes, test, cells) if what == "kept" else _d(axes, test, cells)
            if column == 0:
                axes.set_ylabel("contrast kept, %" if what == "kept" else "d', 95 % interval")
            axes.set_title(f"{noise} ({cells[0].sigma:.3g} {test.unit})\n{size:.3g} px", fontsize=9)
            axes.set_xlabel(f"contrast of the {test.shape}, {test.unit}")
            if what == "d" or legend is None:
                legend = axes
    assert legend is not None
    one_legend(figure, legend)
    about = f"{test.sites} sites, {test.repeats} draws of noise. Not for clinical use"
    figure.suptitle(f"{test.model}, weights {test.weight_hash[:12]}; {about}", fontsize=9)
    save_png(figure, path, dpi=110)


def _of(test: LesionTest, noise: str, size: float) -> list[Cell]:
    return [cell for cell in test.cells if (cell.noise, cell.size) == (noise, size)]


def _seen(test: LesionTest, noise: str) -> bool:
    return any(cell.ideal_d is not None for cell in test.cells if cell.noise == noise)


def _kept(axes: Axes, test: LesionTest, cells: list[Cell]) -> None:
    for number, method in enumerate(test.methods):
        if method != INPUT:
            points = [(cell.contrast, 100 * cell.scores[method].kept) for cell in cells]
            axes.plot(*zip(*points, strict=True), "o-", ms=4, color=f"C{number}", label=method)
    axes.set_ylim(0, 110)
    axes.set_xticks([cell.contrast for cell in cells])


def _d(axes: Axes, test: LesionTest, cells: list[Cell]) -> None:
    contrasts = [cell.contrast for cell in cells]
    axes.plot(contrasts, [cell.ideal_d or 0 for cell in cells], "k--", lw=1, label=IDEAL)
    width = max(abs(c) for c in contrasts)
    for number, method in enumerate(test.methods):
        shift = 0.008 * width * (number - len(test.methods) / 2)  # so that intervals stand beside each other
        for k, cell in enumerate(cells):
            score = cell.scores[method]
            if score.d_interval is not None:
                axes.plot([cell.contrast + shift] * 2, score.d_interval, lw=1.5, alpha=0.6, color=f"C{number}")
            if k == 0:
                points = [(c.contrast + shift, c.scores[method].d) for c in cells]
                axes.plot(*zip(*points, strict=True), "o-", ms=4, color=f"C{number}", label=method)
    axes.set_ylim(bottom=0)
    axes.set_xticks(contrasts)
