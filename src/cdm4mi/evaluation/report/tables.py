"""The tables of a report, once: HTML, CSV and LaTeX are three ways to write them."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cdm4mi.evaluation.report.record import Figure, Record, known, number
from cdm4mi.evaluation.text import NOTHING

LESS_IS_BETTER = ("mae", "rmse", "spectrum", "flicker", "crps")
NO_ORDER = ("bias", "cnr_ratio", "coverage", "interval_level", "interval_width")
OUTSIDE = "†"
WORDS = {
    "psnr": "PSNR (dB)",
    "mae": "MAE",
    "rmse": "RMSE",
    "bias": "bias",
    "vif": "VIF",
    "spectrum": "spectrum distance (dB)",
    "cnr_ratio": "CNR over the reference's",
    "crps": "CRPS",
}


@dataclass(frozen=True)
class Cell:
    """text: as shown. value: to sort by and for CSV. strong: the best of its column. note: a mark's meaning."""

    text: str
    value: float | str = ""
    strong: bool = False


@dataclass
class Table:
    """slug: of its files. note: what stands beneath."""

    slug: str
    title: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""


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
    return format(
        value, ".2f" if metric in ("psnr", "spectrum") else ".3f" if metric.startswith(("ssim", "vif")) else ".3g"
    )


def tables(record: Record) -> Iterator[Table]:
    """All tables of a study."""
    for protocol in record.protocols:
        for region in protocol["regions"]:
            yield main_table(record, protocol, region)
    for protocol in record.protocols:
        yield further_table(record, protocol)
        yield patients_table(record, protocol)
        tests = tests_table(record, protocol)
        if tests.rows:
            yield tests
    yield methods_table(record)


def stamp(record: Record, protocol: dict[str, Any]) -> str:
    """What stands beside every figure."""
    return f"protocol {protocol['label']}, split {record.said['split']}"


def main_table(record: Record, protocol: dict[str, Any], region: str) -> Table:
    """PSNR, SSIM and MAE of every method at every level."""
    metrics = protocol["main_metrics"] or record.metrics(protocol["label"])[:3]
    columns = ["method", "network calls", "s a slice"]
    columns += [f"{level['short']}: {words(metric)}" for level in record.levels for metric in metrics]
    unit = record.error_unit(protocol)
    table = Table(
        f"{protocol['name']}-{region}",
        f"{'Whole image' if region == 'image' else 'Body'}: mean over {len(record.said['patients'])} patient(s)",
        columns,
        note=f"{stamp(record, protocol)}. {protocol['described']}. MAE {unit}. In brackets: 95 % bootstrap "
        f"interval over patients. Bold: the best mean. {OUTSIDE}: a noise level outside the model's training.",
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
        "Further metrics, mean over patients",
        ["noise", "region", "method", *map(words, metrics)],
        note=f"{stamp(record, protocol)}. MAE, RMSE and bias {record.error_unit(protocol)}.",
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
        f"Every patient ({region})",
        ["noise", "patient", "method", *map(words, metrics)],
        note=f"{stamp(record, protocol)}. Patients by pseudonym.",
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
        f"{record.main} against the others",
        ["noise", "against", "region", "metric", "difference", "p (Holm)", "patients"],
        note=f"{stamp(record, protocol)}. Paired Wilcoxon tests over patients, adjusted for all of a noise level.",
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
    table = Table(
        "methods", "Methods", ["method", "weights", "parameters", "steps", "trained for", "sampling or tuning"]
    )
    for method in record.said["methods"]:
        how = method.get("sampling") or method.get("tuned") or {}
        if "tuned" in method:
            settings = "; ".join(f"{level}: {_listed(tuned)}" for level, tuned in method["tuned"].items())
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
        ahead = order[: order.index(record.main)]
        yield f"{text}; {record.main} has {shown(means[record.main], metric)} and loses to {', '.join(ahead)}."


def as_html(table: Table) -> str:
    """A table whose columns are sorted by a click on their heading."""
    head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in table.columns)
    body = "".join(f"<tr>{''.join(map(_td, row))}</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{html.escape(table.title)}</h3><div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def as_csv(table: Table) -> str:
    """The table with full digits; the first line is its note."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if table.note:
        file.write(f"# {table.note}\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([c.text if isinstance(c.value, str) else format(c.value, ".6g") for c in row])
    return file.getvalue()


def as_latex(table: Table) -> str:
    """The table for a paper (package booktabs)."""
    lines = [
        f"% {table.title}. {table.note}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(_tex, table.columns)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        lines.append(" & ".join(rf"\textbf{{{_tex(c.text)}}}" if c.strong else _tex(c.text) for c in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _figure(figure: Figure, metric: str, mark: str = "", strong: bool = False) -> Cell:
    text = shown(figure.value, metric) + (mark if known(figure.value) else "")
    if known(figure.low):
        text += f" [{shown(figure.low, metric)}, {shown(figure.high, metric)}]"
    return Cell(text, figure.value, strong)


def _td(cell: Cell) -> str:
    key = html.escape(str(cell.value if cell.value != "" else cell.text), quote=True)
    text = html.escape(cell.text)
    is_text = isinstance(cell.value, str) and cell.text != NOTHING
    return f'<td{" class=t" if is_text else ""} data-v="{key}">{f"<b>{text}</b>" if cell.strong else text}</td>'


def _tex(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, {"\\": r"\textbackslash "}.get(character, "\\" + character))
    return text.replace(OUTSIDE, r"$\dagger$").replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
