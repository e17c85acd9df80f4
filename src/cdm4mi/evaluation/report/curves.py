"""The curves of a report as SVG text: over noise level and network calls, perception against distortion, spectra."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cdm4mi.evaluation.benchmark.record import Record
from cdm4mi.evaluation.statistics import Mean
from cdm4mi.measure.plots import as_svg, axes_in_rows, one_legend

# Okabe and Ito's colours, which the colour-blind tell apart, and two more; grey is kept for the noisy input
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#8C6D1F", "#B22222", "#4D4D00"]
LINES: list[Any] = ["-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
GREY = "#777777"


def curves(record: Record) -> Iterator[tuple[str, str | None, str]]:
    """Every figure: its title, its SVG (None where the study has nothing for it), and a note."""
    yield (
        "Over the noise level",
        over_level(record),
        "Shaded: 95 % bootstrap interval; hollow: outside training. A colour is a model, a marker one way of "
        "sampling it; the axes leave out the noisy input, and what fails, where they are far off.",
    )
    calls, points = over_calls(record), plane(record)
    yield "Over network calls", calls, "" if calls else "No model is sampled in two ways."
    needs = "Needs PSNR and the spectrum's distance in the protocol."
    yield "Perception and distortion", points, "" if points else needs
    yield (
        "Spectra",
        spectra(record),
        "Over 0 dB: noise that is left or made up; under 0 dB: detail that is smoothed away.",
    )


def over_level(record: Record) -> str:
    """The protocol's main metrics against the noise's standard deviation, with intervals; hollow: outside training."""
    metrics = record.plotted[0].main_metrics
    figure, panels = axes_in_rows(len(metrics))
    x = [level.sigma for level in record.levels]
    styles = _styles(record)
    for axes, metric in zip(panels, metrics, strict=True):
        by_level = [record.means(k, metric) for k in range(len(x))]
        for method, style in styles.items():
            means = [by_method[method] for by_method in by_level]
            y = [m.value if math.isfinite(m.value) else math.nan for m in means]
            color, marker = style["color"], style["marker"]
            line = {"color": color, "linestyle": style["linestyle"], "linewidth": 1.3}
            axes.plot(x, y, **line)
            axes.plot([], [], marker=marker, markersize=5, label=method, **line)
            axes.fill_between(x, [m.low for m in means], [m.high for m in means], color=color, alpha=0.12, lw=0)
            for k, level in enumerate(record.levels):
                face = "white" if level.inside_training[method] is False else color
                axes.plot(x[k], y[k], marker, color=color, markerfacecolor=face, markersize=5)
        _frame(record, axes, by_level)
        axes.set_xlabel("standard deviation of the noise on [-1, 1]")
        axes.set_ylabel(_label(record, metric))
        if len(x) > 1 and min(x) > 0 and max(x) / min(x) > 3:
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{v:.2g}" for v in x])
            axes.minorticks_off()
    one_legend(figure, panels[0])
    return as_svg(figure, "level")


def over_calls(record: Record) -> str | None:
    """The first metric against network calls, a line for each model; None where no model is sampled in two ways."""
    families: dict[str, list[str]] = {}
    for method in record.study.methods:
        families.setdefault(method.family or method.title, []).append(method.title)
    if not any(len({record.levels[0].calls[m] for m in members}) > 1 for members in families.values()):
        return None
    metric, styles = record.plotted[0].main_metrics[0], _styles(record)
    figure, panels = _panel_a_level(record)
    for k, (axes, level) in enumerate(zip(panels, record.levels, strict=True)):
        means = record.means(k, metric)
        for members in families.values():
            members = sorted(members, key=lambda m: level.calls[m])
            style = styles[members[0]]
            if level.calls[members[-1]] == 0:
                line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1}
                axes.axhline(means[members[0]].value, label=members[0], **line)
                continue
            x = [level.calls[m] for m in members]
            axes.plot(x, [means[m].value for m in members], color=style["color"], linewidth=0.8, alpha=0.6)
            for m, at in zip(members, x, strict=True):
                point = {"color": styles[m]["color"], "label": m, "markersize": 6}
                axes.plot(at, means[m].value, styles[m]["marker"], **point)
        _frame(record, axes, [means])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("network calls")
        axes.set_ylabel(_label(record, metric))
    one_legend(figure, panels[0])
    return as_svg(figure, "calls")


def plane(record: Record) -> str | None:
    """Perception against distortion (Blau and Michaeli 2018): spectrum distance over PSNR; None without both."""
    if not {"psnr", "spectrum"} <= set(record.scores[0][record.plotted[0].label].metrics):
        return None
    figure, panels = _panel_a_level(record)
    for k, axes in enumerate(panels):
        psnr, spectrum = record.means(k, "psnr"), record.means(k, "spectrum")
        for method, style in _styles(record).items():
            x, y = psnr[method].value, spectrum[method].value
            if math.isfinite(x) and not math.isnan(y):
                axes.plot(x, y, style["marker"], color=style["color"], label=method, markersize=8)
        _frame(record, axes, [psnr], along="x")
        _frame(record, axes, [spectrum])
        axes.set_xlabel("PSNR (dB)\nless distortion →")
        axes.set_ylabel("← better texture\nspectrum distance (dB)")
    one_legend(figure, panels[0])
    return as_svg(figure, "plane")


def spectra(record: Record) -> str:
    """Power of the restored images over the reference's, in dB: 0 is the texture of a real scan."""
    reference, x = np.array(record.study.reference_spectrum), record.study.frequencies
    figure, panels = _panel_a_level(record)
    for axes, level in zip(panels, record.levels, strict=True):
        axes.axhline(0, color="black", linewidth=1)
        for method, style in _styles(record).items():
            ratio = 10 * np.log10(np.maximum(level.spectra[method], 1e-30) / np.maximum(reference, 1e-30))
            axes.plot(x, ratio, color=style["color"], linestyle=style["linestyle"], linewidth=1.3, label=method)
        axes.set_xlabel("cycles a pixel")
        axes.set_ylabel("power over the reference's (dB)")
    one_legend(figure, panels[0])
    return as_svg(figure, "spectra")


def _panel_a_level(record: Record) -> tuple[Any, list[Axes]]:
    figure, panels = axes_in_rows(len(record.levels))
    for axes, level in zip(panels, record.levels, strict=True):
        axes.set_title(level.short, fontsize=9)
    return figure, panels


def _label(record: Record, metric: str) -> str:
    protocol, region = record.plotted
    return f"{record.scores[0][protocol.label].title(metric)}, {region}"


def _styles(record: Record) -> dict[str, dict[str, Any]]:
    """Colour, marker and line by method, the same in all figures: a colour for a model, a marker for its sampling."""
    styles: dict[str, dict[str, Any]] = {}
    members: dict[str, int] = {}
    for method in record.study.methods:
        if method.untouched:
            styles[method.title] = {"color": GREY, "marker": "x", "linestyle": ":"}
            continue
        family = method.family or method.title
        number = members[family] = members.get(family, -1) + 1
        colour = list(members).index(family)
        styles[method.title] = {
            "color": COLOURS[colour % len(COLOURS)],
            "marker": MARKERS[(colour // len(COLOURS) + number) % len(MARKERS)],
            "linestyle": LINES[number % len(LINES)] if method.family else "--",
        }
    return styles


def _frame(record: Record, axes: Axes, means: Sequence[dict[str, Mean]], along: str = "y") -> None:
    """Limits that leave out the noisy input, and methods that fail, which would press all the others into one line.

    means: by method, at each level. A method fails at a level where it is three interquartile ranges off.
    """
    noisy = {method.title for method in record.study.methods if method.untouched}
    held: list[float] = []
    for by in means:
        values = np.array([m.value for method, m in by.items() if method not in noisy and math.isfinite(m.value)])
        if len(values):
            low, high = np.quantile(values, [0.25, 0.75])
            reach = 3 * (high - low)
            held += values[(values >= low - reach) & (values <= high + reach)].tolist()
    if held:
        margin = 0.08 * (max(held) - min(held)) or 0.05 * abs(max(held)) or 1.0
        (axes.set_xlim if along == "x" else axes.set_ylim)(min(held) - margin, max(held) + margin)
