"""The tables of a report, and what its summary says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from cdm4mi.evaluation.benchmark.record import LevelRecord, Record
from cdm4mi.evaluation.metrics import NONE, NOTHING, metric_of, shown
from cdm4mi.evaluation.protocol import ProtocolRecord
from cdm4mi.evaluation.statistics import Mean
from cdm4mi.evaluation.study import Study
from cdm4mi.evaluation.table import OUTSIDE, Cell, Column, Table, figure

CLOCK = "processor time on a CPU, wall clock on a GPU"


def tables(record: Record) -> Iterator[Table]:
    """All tables of a study, the main ones first."""
    for protocol in record.study.protocols:
        for region in protocol.regions:
            yield main_table(record, protocol, region)
    yield methods_table(record)
    for protocol in record.study.protocols:
        yield further_table(record, protocol)
        yield patients_table(record, protocol)
        tests = tests_table(record, protocol)
        if tests.rows:
            yield tests


def stamp(record: Record, protocol: ProtocolRecord) -> str:
    """What stands beside every figure."""
    return f"protocol {protocol.label}, split {record.study.split}"


def main_table(record: Record, protocol: ProtocolRecord, region: str) -> Table:
    """PSNR, SSIM and MAE of every method at every level."""
    studies = _studies(record, protocol)
    metrics = protocol.main_metrics or studies[0][1].metrics[:3]
    people = len(record.study.patients)
    marked = any(inside is False for level in record.levels for inside in level.inside_training.values())
    table = Table(
        f"{protocol.name}, {'whole image' if region == 'image' else 'body'}: mean over {people} "
        f"patient{'s' if people > 1 else ''}",
        [
            *_columns("method", "network calls", "s a slice"),
            *(Column(study.title(metric), level.short) for level, study in studies for metric in metrics),
        ],
        note=f"{stamp(record, protocol)}. Window: {protocol.described}. "
        + ("In brackets: 95 % bootstrap interval over patients. " if people > 1 else "")
        + "Bold: the best mean. "
        + "".join(f"{studies[0][1].title(m)}: {about}. " for m in metrics if (about := metric_of(m).about))
        + (f"{OUTSIDE}: a noise level outside the model's training. " if marked else "")
        + f"s a slice: {CLOCK}.",
        slug=f"{protocol.name}-{region}",
    )
    for method in record.methods:
        calls = [level.calls[method] for level in record.levels]
        seconds = sum(level.seconds[method] for level in record.levels) / len(record.levels)
        span = str(calls[0]) if len(set(calls)) == 1 else f"{min(calls)}-{max(calls)}"
        row = [Cell(method, method), Cell(span if max(calls) else NOTHING, max(calls)), Cell(f"{seconds:.3g}", seconds)]
        for level, study in studies:
            mark = OUTSIDE if level.inside_training[method] is False else ""
            row += [_figure(study, method, region, metric, mark) for metric in metrics]
        table.rows.append(row)
    return table


def further_table(record: Record, protocol: ProtocolRecord) -> Table:
    """Every metric that the main table has not."""
    studies = _studies(record, protocol)
    every = dict.fromkeys(m for _, study in studies for m in study.metrics)
    metrics = [m for m in every if m not in protocol.main_metrics]
    return Table(
        f"{protocol.name}: further metrics, mean over patients",
        _columns("noise", "region", "method", *map(studies[0][1].title, metrics)),
        [
            [
                *(Cell(level.short, level.sigma), Cell(region, region), Cell(method, method)),
                *(_figure(study, method, region, metric, interval=False) for metric in metrics),
            ]
            for level, study in studies
            for region in protocol.regions
            for method in record.methods
        ],
        note=f"{stamp(record, protocol)}.",
        slug=f"{protocol.name}-further",
        folded=True,
    )


def patients_table(record: Record, protocol: ProtocolRecord) -> Table:
    """Every patient."""
    studies, region, metrics = _studies(record, protocol), protocol.regions[0], protocol.main_metrics
    return Table(
        f"{protocol.name}: every patient ({region})",
        _columns("noise", "patient", "method", *map(studies[0][1].title, metrics)),
        [
            [
                *(Cell(level.short, level.sigma), Cell(of.patient, of.patient), Cell(of.method, of.method)),
                *(figure(Mean(of.scores.get(metric, NONE)), metric) for metric in metrics),
            ]
            for level, study in studies
            for of in study.patients
            if of.region == region
        ],
        note=f"{stamp(record, protocol)}. Patients by pseudonym.",
        slug=f"{protocol.name}-patients",
        folded=True,
    )


def tests_table(record: Record, protocol: ProtocolRecord) -> Table:
    """The main method against every other one."""
    return Table(
        f"{protocol.name}: {record.study.main} against the others",
        _columns("noise", "against", "region", "metric", "difference", "p (Holm)", "patients"),
        [
            [
                *(Cell(level.short, level.sigma), Cell(test.other, test.other), Cell(test.region, test.region)),
                Cell(study.title(test.metric), test.metric),
                Cell(f"{test.difference:+.3g}", test.difference),
                Cell(f"{test.adjusted:.2g}", test.adjusted),
                Cell(str(test.patients), test.patients),
            ]
            for level, study in _studies(record, protocol)
            for test in study.tests
        ],
        note=f"{stamp(record, protocol)}. Paired Wilcoxon tests over patients, adjusted for all of a noise level.",
        slug=f"{protocol.name}-tests",
        folded=True,
    )


def methods_table(record: Record) -> Table:
    """What every method is."""
    columns = _columns("method", "weights", "parameters", "steps", "trained for", "sampling or tuning")
    table = Table("Methods", columns, slug="methods", folded=True)
    short = {level.described: level.short for level in record.levels}
    for method in record.study.methods:
        how = method.sampling or {}
        if method.tuned is not None:
            settings = "; ".join(f"{short.get(level, level)}: {_listed(best)}" for level, best in method.tuned.items())
            settings += f" (of {method.tried} tried on validation patients)"
        elif how.get("estimate") == "mean":
            settings = "one-call mean"
        else:
            keys = ("estimate", "solver", "steps", "times", "eta", "spacing", "clip")
            settings = _listed({key: how[key] for key in keys if how.get(key) is not None})
            settings += f", K = {how['samples']}" if how.get("estimate") == "mean-of-k" else ""
        size, steps = method.parameters, method.training_steps
        table.rows.append(
            [
                Cell(method.title, method.title),
                Cell((method.weights or NOTHING)[:12]),
                Cell(f"{size:,}" if size else NOTHING, size or 0),
                Cell(f"{steps:,} x {method.batch}" if steps else NOTHING, steps or 0),
                Cell(method.noise_in_training or NOTHING),
                Cell(settings),
            ]
        )
    return table


def verdicts(record: Record) -> Iterator[str]:
    """For every level, in words: which method has the best PSNR, and where the main method stands."""
    protocol, _ = record.plotted
    main = record.study.main
    for number, (level, study) in enumerate(_studies(record, protocol)):
        metric = "psnr" if "psnr" in study.metrics else study.metrics[0]
        means = {m: mean.value for m, mean in record.means(number, metric).items() if not math.isnan(mean.value)}
        if len(means) < 2 or main not in means:
            continue
        order = sorted(means, key=lambda m: means[m], reverse=metric_of(metric).better != "less")
        figures = {m: shown(value, metric) for m, value in means.items()}
        text = f"{level.short}: {order[0]} has the best {study.title(metric)}, {figures[order[0]]}"
        if order[0] == main:
            yield f"{text}, before {order[1]} with {figures[order[1]]}."
            continue
        # names may hold commas
        ahead = "; ".join(f"{m} ({figures[m]})" for m in order[: order.index(main)])
        yield f"{text}; {main} has {figures[main]} and loses to {ahead}."


def _studies(record: Record, protocol: ProtocolRecord) -> list[tuple[LevelRecord, Study]]:
    """Every level with its scores under a protocol."""
    return [(level, by[protocol.label]) for level, by in zip(record.levels, record.scores, strict=True)]


def _columns(*names: str) -> list[Column]:
    return [Column(name) for name in names]


def _figure(study: Study, method: str, region: str, metric: str, mark: str = "", interval: bool = True) -> Cell:
    """A mean, bold where it is the best of the methods."""
    mean = study.mean(method, region, metric)
    values = [study.mean(other, region, metric).value for other in study.methods]
    values = [value for value in values if not math.isnan(value)]
    better = metric_of(metric).better
    best = {"more": max, "less": min}[better](values) if values and better != "neither" else NONE
    return figure(mean if interval else Mean(mean.value), metric, mark, mean.value == best)


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {format(value, 'g') if isinstance(value, float) else value}"
        for key, value in settings.items()
    )
