"""The picture of quality against network calls: a line a solver, the chosen setting ringed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from cdm4mi.evaluation.steps import SPECTRUM_MARGIN, Row
from cdm4mi.files import replacing_file


def quality_picture(path: Path, rows: Sequence[Row], chosen: Row) -> None:
    """PSNR and spectrum error of one sample against network calls; shaded, the spectrum errors that may be chosen."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    least = min(row.spectrum_error for row in rows)
    panels[1].axhspan(
        least, SPECTRUM_MARGIN * least, color="#2a9d4a", alpha=0.12, lw=0, label="within 10 % of the least"
    )
    for axes, name, title in zip(
        panels, ("psnr", "spectrum_error"), ("PSNR of one sample (dB)", "spectrum error (dB)"), strict=True
    ):
        for label, line in by_name.items():
            points = sorted((row.calls, getattr(row, name)) for row in line)
            single = {"marker": "D", "linestyle": "none"} if len(points) == 1 else {"marker": "o", "markersize": 4}
            axes.plot(*zip(*points, strict=True), label=label, **single)
        axes.plot(chosen.calls, getattr(chosen, name), "o", ms=13, mfc="none", mec="black", label="chosen")
        axes.set_xscale("log")
        ticks = sorted({row.calls for row in rows if row.calls in (1, 2, 4, 10, 20, 50)})
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("network calls")
        axes.set_title(title, fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].legend(frameon=False, fontsize=8)
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
