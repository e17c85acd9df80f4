"""The tables of a report, and what its summary says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from cdm4mi.evaluation.report.record import Figure, Record, known, number
from cdm4mi.evaluation.report.table import OUTSIDE, Cell, Column, Table
from cdm4mi.evaluation.text import NOTHING

LESS_IS_BETTER = ("mae", "rmse", "spectrum", "flicker", "crps", "lpips")
CLOCK = "processor time on a CPU, wall clock on a GPU"
NO_ORDER = ("bias", "cnr_ratio", "coverage", "interval_level", "interval_width")
WORDS = {
    "psnr": "PSNR (dB)",
    "mae": "MAE",
    "rmse": "RMSE",
    "bias": "bias",
    "vif": "VIF",
    "spectrum": "spectrum distance (dB)",
    "cnr_ratio": "CNR over the reference's",
    "crps": "CRPS",
    "lpips": "LPIPS",
}


def words(metric: str) -> str:
    """A metric's name in a heading."""
    if metric.startswith("ssim"):
        return "SSIM" if metric in ("ssim_gaussian", "ssim_uniform") else f"SSIM ({metric[5:].replace('_', ' ')})"
    return WORDS.get(metric, metric.replace("_", " "))


def shown(value: float, metric: str) -> str:
    """A figure with the digits that it deserves."""
    if not known(value):
        return NOTHING
    if math.isinf(value):
        return "inf"
    if metric in ("psnr", "spectrum"):
        return f"{value:.2f}"
    if metric.startswith(("ssim", "vif", "cnr", "coverage")):
        return f"{value:.3f}"
    # errors are on [-1, 1] or in HU: as many digits in every row of a column
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"


def tables(record: Record) -> Iterator[Table]:
    """All tables of a study, the main ones first."""
    for protocol in record.protocols:
        for region in protocol["regions"]:
            yield main_table(record, protocol, region)
    yield methods_table(record)
    for protocol in record.protocols:
        yield further_table(record, protocol)
        yield patients_table(record, protocol)
        tests = tests_table(record, protocol)
        if tests.rows:
            yield tests


def stamp(record: Record, protocol: dict[str, Any]) -> str:
    """What stands beside every figure."""
    return f"protocol {protocol['label']}, split {record.said['split']}"


def counted(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def main_table(record: Record, protocol: dict[str, Any], region: str) -> Table:
    """PSNR, SSIM and MAE of every method at every level."""
    metrics = protocol["main_metrics"] or record.metrics(protocol["label"])[:3]
    columns = columns_of("method", "network calls", "s a slice")
    columns += [Column(words(metric), level["short"]) for level in record.levels for metric in metrics]
    unit = record.error_unit(protocol)
    marked = any(inside is False for level in record.levels for inside in level["inside_training"].values())
    outside = f" {OUTSIDE}: a noise level outside the model's training." if marked else ""
    people = len(record.said["patients"])
    spread = "In brackets: 95 % bootstrap interval over patients. " if people > 1 else ""
    table = Table(
        f"{protocol['name']}-{region}",
        f"{protocol['name']}, {'whole image' if region == 'image' else 'body'}: mean over {counted(people, 'patient')}",
        columns,
        note=f"{stamp(record, protocol)}. Window: {protocol['described']}. MAE {_in(unit)}. {spread}"
        f"Bold: the best mean.{outside} s a slice: {CLOCK}.",
    )
    for method in record.methods:
        calls = [level["calls"][method] for level in record.levels]
        seconds = sum(level["seconds"][method] for level in record.levels) / len(record.levels)
        span = str(calls[0]) if len(set(calls)) == 1 else f"{min(calls)}-{max(calls)}"
        row = [Cell(method, method), Cell(span if max(calls) else NOTHING, max(calls)), Cell(f"{seconds:.3g}", seconds)]
        for number_, level in enumerate(record.levels):
            mark = OUTSIDE if level["inside_training"][method] is False else ""
            for metric in metrics:
                figure = record.mean(number_, protocol["label"], method, region, metric)
                best = best_of(record, number_, protocol["label"], region, metric)
                row.append(_figure(figure, metric, mark, figure.value == best))
        table.rows.append(row)
    return table


def best_of(record: Record, level: int, label: str, region: str, metric: str) -> float:
    """The best mean of a column; nan where the metric has no order."""
    values = [record.mean(level, label, method, region, metric).value for method in record.methods]
    values = [value for value in values if known(value)]
    if not values or metric.startswith(NO_ORDER):
        return float("nan")
    return min(values) if metric.startswith(LESS_IS_BETTER) else max(values)


def further_table(record: Record, protocol: dict[str, Any]) -> Table:
    """Every metric that the main table has not."""
    label = protocol["label"]
    metrics = [m for m in record.metrics(label) if m not in protocol["main_metrics"]]
    table = Table(
        f"{protocol['name']}-further",
        f"{protocol['name']}: further metrics, mean over patients",
        columns_of("noise", "region", "method", *map(words, metrics)),
        note=f"{stamp(record, protocol)}. MAE, RMSE and bias {_in(record.error_unit(protocol))}.",
        folded=True,
    )
    for level_number, level in enumerate(record.levels):
        for region in protocol["regions"]:
            for method in record.methods:
                row = [Cell(level["short"], level["sigma"]), Cell(region, region), Cell(method, method)]
                for metric in metrics:
                    figure = record.mean(level_number, label, method, region, metric)
                    best = best_of(record, level_number, label, region, metric)
                    row.append(_figure(Figure(figure.value), metric, "", figure.value == best))
                table.rows.append(row)
    return table


def patients_table(record: Record, protocol: dict[str, Any]) -> Table:
    """Every patient."""
    region, metrics = protocol["regions"][0], protocol["main_metrics"]
    table = Table(
        f"{protocol['name']}-patients",
        f"{protocol['name']}: every patient ({region})",
        columns_of("noise", "patient", "method", *map(words, metrics)),
        note=f"{stamp(record, protocol)}. Patients by pseudonym.",
        folded=True,
    )
    for level_number, level in enumerate(record.levels):
        for entry in record.patients(level_number, protocol["label"]):
            if entry["region"] == region:
                row = [Cell(level["short"], level["sigma"]), Cell(entry["patient"], entry["patient"])]
                row.append(Cell(entry["method"], entry["method"]))
                row += [_figure(Figure(number(entry["scores"].get(m))), m) for m in metrics]
                table.rows.append(row)
    return table


def tests_table(record: Record, protocol: dict[str, Any]) -> Table:
    """The main method against every other one."""
    table = Table(
        f"{protocol['name']}-tests",
        f"{protocol['name']}: {record.main} against the others",
        columns_of("noise", "against", "region", "metric", "difference", "p (Holm)", "patients"),
        note=f"{stamp(record, protocol)}. Paired Wilcoxon tests over patients, adjusted for all of a noise level.",
        folded=True,
    )
    for level_number, level in enumerate(record.levels):
        for test in record.tests(level_number, protocol["label"]):
            difference, p = number(test["difference"]), number(test["adjusted"])
            table.rows.append(
                [
                    Cell(level["short"], level["sigma"]),
                    Cell(test["other"], test["other"]),
                    Cell(test["region"], test["region"]),
                    Cell(words(test["metric"]), test["metric"]),
                    Cell(f"{difference:+.3g}", difference),
                    Cell(f"{p:.2g}", p),
                    Cell(str(test["patients"]), test["patients"]),
                ]
            )
    return table


def methods_table(record: Record) -> Table:
    """What every method is."""
    columns = columns_of("method", "weights", "parameters", "steps", "trained for", "sampling or tuning")
    table = Table("methods", "Methods", columns, folded=True)
    short = {level["described"]: level["short"] for level in record.levels}
    for method in record.said["methods"]:
        how = method.get("sampling") or method.get("tuned") or {}
        if "tuned" in method:
            settings = "; ".join(f"{short.get(k, k)}: {_listed(tuned)}" for k, tuned in method["tuned"].items())
            settings += f" (of {method['tried']} tried on validation patients)"
        elif how.get("estimate") == "mean":
            settings = "one-call mean"
        else:
            keys = ("estimate", "solver", "steps", "times", "eta", "spacing", "clip")
            settings = _listed({key: how[key] for key in keys if how.get(key) is not None})
            settings += f", K = {how['samples']}" if how.get("estimate") == "mean-of-k" else ""
        size = method.get("parameters")
        steps = method.get("training steps")
        table.rows.append(
            [
                Cell(method["title"], method["title"]),
                Cell(method.get("weights", NOTHING)[:12]),
                Cell(f"{size:,}" if size else NOTHING, size or 0),
                Cell(f"{steps:,} x {method['batch']}" if steps else NOTHING, steps or 0),
                Cell(method.get("noise in training", NOTHING)),
                Cell(settings),
            ]
        )
    return table


def verdicts(record: Record) -> Iterator[str]:
    """For every level, in words: which method has the best PSNR, and where the main method stands."""
    protocol = record.protocols[0]
    region = protocol["regions"][0]
    for level_number, level in enumerate(record.levels):
        metric = "psnr" if "psnr" in record.metrics(protocol["label"]) else record.metrics(protocol["label"])[0]
        means = {m: record.mean(level_number, protocol["label"], m, region, metric).value for m in record.methods}
        means = {m: value for m, value in means.items() if known(value)}
        if len(means) < 2 or record.main not in means:
            continue
        less = metric.startswith(LESS_IS_BETTER)
        order = sorted(means, key=lambda m: means[m] if less else -means[m])
        text = f"{level['short']}: {order[0]} has the best {words(metric)}, {shown(means[order[0]], metric)}"
        if order[0] == record.main:
            yield f"{text}, before {order[1]} with {shown(means[order[1]], metric)}."
            continue
        # names may hold commas
        ahead = "; ".join(f"{m} ({shown(means[m], metric)})" for m in order[: order.index(record.main)])
        yield f"{text}; {record.main} has {shown(means[record.main], metric)} and loses to {ahead}."


def columns_of(*names: str) -> list[Column]:
    """Columns without a common heading."""
    return [Column(name) for name in names]


def _figure(figure: Figure, metric: str, mark: str = "", strong: bool = False) -> Cell:
    text = shown(figure.value, metric) + (mark if known(figure.value) else "")
    between = f"[{shown(figure.low, metric)}, {shown(figure.high, metric)}]" if known(figure.low) else ""
    return Cell(text, figure.value, strong, figure.low, figure.high, between)


def _in(unit: str) -> str:
    return unit if unit.startswith("on ") else f"in {unit}"


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {format(value, 'g') if isinstance(value, float) else value}"
        for key, value in settings.items()
    )
