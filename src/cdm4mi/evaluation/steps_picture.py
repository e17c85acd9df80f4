"""The picture of quality against network calls: a line a solver, the chosen setting ringed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import NullFormatter, ScalarFormatter

from cdm4mi.evaluation.steps import CALLS, SPECTRUM_MARGIN, Row
from cdm4mi.measure.plots import axes_in_rows, one_legend, save_png


def quality_picture(path: Path, rows: Sequence[Row], chosen: Row) -> None:
    """PSNR and spectrum error of one sample against network calls; shaded, the spectrum errors that may be chosen."""
    figure, panels = axes_in_rows(2)
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    least = min(row.spectrum_error for row in rows)
    within = "within 10 % of the least"
    panels[1].axhspan(least, SPECTRUM_MARGIN * least, color="#2a9d4a", alpha=0.12, lw=0, label=within)
    titles = {"psnr": "PSNR of one sample (dB)", "spectrum_error": "spectrum error (dB)"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for label, line in by_name.items():
            points = sorted((row.calls, getattr(row, name)) for row in line)
            single = {"marker": "D", "linestyle": "none"} if len(points) == 1 else {"marker": "o", "markersize": 4}
            axes.plot(*zip(*points, strict=True), label=label, **single)
        axes.plot(chosen.calls, getattr(chosen, name), "o", ms=13, mfc="none", mec="black", label="chosen")
        axes.set_xscale("log")
        axes.set_xticks(sorted({row.calls for row in rows} & set(CALLS)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("network calls")
        axes.set_title(title, fontsize=11)
    one_legend(figure, panels[1])
    save_png(figure, path)
