"""Figures of curves in one style, as SVG text or as a PNG file."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cdm4mi.files import replacing_file


def axes_in_rows(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes, three or four in a row, with room for a legend beneath."""
    wide = 4 if count == 4 else min(count, 3)
    rows = -(-count // wide)
    figure = Figure(figsize=((3.4 if wide == 4 else 3.9) * wide, 3.2 * rows + 0.9), layout="constrained")
    every = [figure.add_subplot(rows, wide, k + 1) for k in range(count)]
    for axes in every:
        styled(axes)
    return figure, every


def styled(axes: Axes) -> None:
    """Give axes the look that all curves have here."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def one_legend(figure: Figure, axes: Axes) -> None:
    """Draw one legend below the figure, with each label of ``axes`` once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def as_svg(figure: Figure, salt: str) -> str:
    """The figure as an SVG element, the same for the same curves; the salt makes the ids of several figures differ."""
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def save_png(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Save the figure as a PNG, which appears whole or not at all."""
    FigureCanvasAgg(figure)
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor=figure.get_facecolor())
