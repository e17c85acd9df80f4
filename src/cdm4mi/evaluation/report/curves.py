"""The curves of a report as SVG text: over noise level and network calls, perception against distortion, spectra."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cdm4mi.evaluation.report.record import Record, known
from cdm4mi.evaluation.report.tables import words

# Okabe and Ito's colours, which the colour-blind tell apart, and two more; grey is kept for the noisy input
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#8C6D1F", "#B22222", "#4D4D00"]
LINES: list[Any] = ["-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#777777"


def over_level(record: Record) -> str:
    """The protocol's main metrics against the noise's standard deviation, with intervals; hollow: outside training."""
    protocol = record.protocols[0]
    metrics, region = protocol["main_metrics"], protocol["regions"][0]
    figure, panels = _panels(len(metrics))
    x = [level["sigma"] for level in record.levels]
    for axes, metric in zip(panels, metrics, strict=True):
        for number, method in enumerate(record.methods):
            means = [record.mean(k, protocol["label"], method, region, metric) for k in range(len(x))]
            style = _style(record, number)
            y = [m.value if math.isfinite(m.value) else math.nan for m in means]
            line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.3}
            axes.plot(x, y, **line)
            axes.plot([], [], marker=style["marker"], markersize=5, label=method, **line)
            axes.fill_between(
                x, [m.low for m in means], [m.high for m in means], color=style["color"], alpha=0.12, lw=0
            )
            for k, level in enumerate(record.levels):
                face = "white" if level["inside_training"][method] is False else style["color"]
                axes.plot(x[k], y[k], style["marker"], color=style["color"], markerfacecolor=face, markersize=5)
        _frame(record, axes, [record.means(k, metric) for k in range(len(x))])
        axes.set_xlabel("standard deviation of the noise on [-1, 1]")
        axes.set_ylabel(f"{words(metric)}, {region}")
        if len(x) > 1 and min(x) > 0 and max(x) / min(x) > 3:
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{v:.2g}" for v in x])
            axes.minorticks_off()
    return _svg(figure, panels, "level")


def over_calls(record: Record) -> str | None:
    """The first metric against network calls, a line for each model; None where no model is sampled in two ways."""
    families: dict[str, list[int]] = {}
    for number in range(len(record.methods)):
        families.setdefault(_family(record, number), []).append(number)
    calls = [level["calls"] for level in record.levels]
    lines = [f for f in families.values() if len({calls[0][record.methods[n]] for n in f}) > 1]
    if not lines:
        return None
    protocol = record.protocols[0]
    metric, region = protocol["main_metrics"][0], protocol["regions"][0]
    figure, panels = _panels(len(record.levels))
    for k, (axes, level) in enumerate(zip(panels, record.levels, strict=True)):
        for numbers in families.values():
            numbers = sorted(numbers, key=lambda n: calls[k][record.methods[n]])
            style = _style(record, numbers[0])
            figures = [record.mean(k, protocol["label"], record.methods[n], region, metric) for n in numbers]
            if calls[k][record.methods[numbers[-1]]] == 0:
                line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1}
                axes.axhline(figures[0].value, label=record.methods[numbers[0]], **line)
                continue
            x = [calls[k][record.methods[n]] for n in numbers]
            axes.plot(x, [f.value for f in figures], color=style["color"], linewidth=0.8, alpha=0.6)
            for n, at, figure_ in zip(numbers, x, figures, strict=True):
                own = _style(record, n)
                axes.plot(at, figure_.value, own["marker"], color=own["color"], label=record.methods[n], markersize=6)
        _frame(record, axes, [record.means(k, metric)])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(level["short"], fontsize=9)
        axes.set_xlabel("network calls")
        axes.set_ylabel(f"{words(metric)}, {region}")
    return _svg(figure, panels, "calls")


def plane(record: Record) -> str | None:
    """Perception against distortion (Blau and Michaeli 2018): spectrum distance over PSNR; None without both."""
    protocol = record.protocols[0]
    label, region = protocol["label"], protocol["regions"][0]
    if not {"psnr", "spectrum"} <= set(record.metrics(label)):
        return None
    figure, panels = _panels(len(record.levels))
    for k, (axes, level) in enumerate(zip(panels, record.levels, strict=True)):
        for number, method in enumerate(record.methods):
            x, y = (record.mean(k, label, method, region, m).value for m in ("psnr", "spectrum"))
            if known(x) and known(y) and math.isfinite(x):
                style = _style(record, number)
                axes.plot(x, y, style["marker"], color=style["color"], label=method, markersize=8)
        _frame(record, axes, [record.means(k, "psnr")], along="x")
        _frame(record, axes, [record.means(k, "spectrum")])
        axes.set_title(level["short"], fontsize=9)
        axes.set_xlabel("PSNR (dB)\nless distortion →")
        axes.set_ylabel("← better texture\nspectrum distance (dB)")
    return _svg(figure, panels, "plane")


def spectra(record: Record) -> str:
    """Power of the restored images over the reference's, in dB: 0 is the texture of a real scan."""
    reference, x = np.array(record.said["reference_spectrum"]), record.said["frequencies"]
    figure, panels = _panels(len(record.levels))
    for axes, level in zip(panels, record.levels, strict=True):
        axes.axhline(0, color="black", linewidth=1)
        for number, method in enumerate(record.methods):
            ratio = 10 * np.log10(np.maximum(level["spectra"][method], 1e-30) / np.maximum(reference, 1e-30))
            style = _style(record, number)
            axes.plot(x, ratio, color=style["color"], linestyle=style["linestyle"], linewidth=1.3, label=method)
        axes.set_title(level["short"], fontsize=9)
        axes.set_xlabel("cycles a pixel")
        axes.set_ylabel("power over the reference's (dB)")
    return _svg(figure, panels, "spectra")


def _family(record: Record, number: int) -> str:
    """What a method shares with those that differ from it only in how they are sampled."""
    method = record.said["methods"][number]
    return str(method["family"] or method["title"])


def _style(record: Record, number: int) -> dict[str, Any]:
    """Colour, marker and line of a method, the same in all figures: a colour for a model, a marker for its sampling."""
    if number in record.noisy:
        return {"color": GREY, "marker": "x", "linestyle": ":"}
    others = [n for n in range(len(record.methods)) if n not in record.noisy]
    families = list(dict.fromkeys(_family(record, n) for n in others))
    place = families.index(_family(record, number))
    own = [n for n in others if _family(record, n) == families[place]].index(number)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[(place // len(COLOURS) + own) % len(MARKERS)],
        "linestyle": LINES[own % len(LINES)] if record.said["methods"][number]["family"] else "--",
    }


def _frame(record: Record, axes: Axes, means: list[dict[str, float]], along: str = "y") -> None:
    """Limits that leave out the noisy input, and methods that fail, which would press all the others into one line.

    means: by method, at each level. A method fails at a level where it is three interquartile ranges off.
    """
    noisy = {record.methods[n] for n in record.noisy}
    held: list[float] = []
    for by in means:
        values = np.array([v for method, v in by.items() if method not in noisy and math.isfinite(v)])
        if len(values):
            low, high = np.quantile(values, [0.25, 0.75])
            reach = 3 * (high - low)
            held += values[(values >= low - reach) & (values <= high + reach)].tolist()
    if not held:
        return
    margin = 0.08 * (max(held) - min(held)) or 0.05 * abs(max(held)) or 1.0
    (axes.set_xlim if along == "x" else axes.set_ylim)(min(held) - margin, max(held) + margin)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    wide = 4 if count == 4 else min(count, 3)
    rows = -(-count // wide)
    figure = Figure(figsize=((3.4 if wide == 4 else 3.9) * wide, 3.2 * rows + 0.9), layout="constrained")
    panels = [figure.add_subplot(rows, wide, k + 1) for k in range(count)]
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    return figure, panels


def _svg(figure: Figure, panels: list[Axes], salt: str) -> str:
    """The figure as an SVG element with one legend; the salt keeps the ids of several apart."""
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
