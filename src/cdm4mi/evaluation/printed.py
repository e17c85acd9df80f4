"""A study in words and tables: what ``cdm4mi evaluate`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdm4mi.evaluation.metrics import METRICS, NONE, NOTHING
from cdm4mi.evaluation.protocol import Protocol
from cdm4mi.evaluation.resolve import ResolvedProtocol
from cdm4mi.evaluation.statistics import LEAST_PAIRS, RESAMPLES, Mean
from cdm4mi.evaluation.study import Study
from cdm4mi.evaluation.table import Cell, Column, Table, figure

MOST_PATIENTS = 25
"""More than these are not listed one by one."""


def tables(study: Study) -> Iterator[Table]:
    """The means; every patient; and the metrics that are not in the first."""
    regions, main = study.protocol.regions, study.protocol.main_metrics or study.metrics[:3]
    columns = [Column(""), *(Column(study.title(name), region) for region in regions for name in main)]
    label = study.protocol.label
    means = Table(f"{label}: mean over patients", columns)
    for m in study.methods:
        means.rows.append([Cell(m), *(figure(study.mean(m, r, name), name) for r in regions for name in main)])
    yield means
    patients = {row.patient: None for row in study.rows}
    if 1 < len(patients) <= MOST_PATIENTS:
        every = Table(f"{label}: every patient", columns)
        found = {(p.patient, p.method, p.region): p.scores for p in study.patients}
        for patient in patients:
            for m in study.methods:
                scores = [
                    (found.get((patient, m, region), {}).get(name, NONE), name) for region in regions for name in main
                ]
                every.rows.append([Cell(f"{patient}, {m}"), *(figure(Mean(value), name) for value, name in scores)])
        yield every
    for region in regions:
        further = Table(
            f"{label}: further metrics of the {region}, mean over patients", [Column(""), *map(Column, study.methods)]
        )
        for name in (name for name in study.metrics if name not in main):
            cells = [figure(study.mean(m, region, name), name) for m in study.methods]
            if any(cell.text != NOTHING for cell in cells):
                further.rows.append([Cell(study.title(name)), *cells])
        if further.rows:
            yield further


def caption(
    study: Study, protocol: Protocol, resolved: Sequence[ResolvedProtocol], chosen: str, clipped: float
) -> Iterator[str]:
    """What a reader must know to compare these figures with others.

    resolved: of every scan. chosen: why it is this protocol. clipped: share of the reference outside the window.
    """
    yield f"Protocol: {protocol.label}{f', split {study.split}' if study.split else ''} ({chosen})."
    spans = list(dict.fromkeys((r.low, r.high) for r in resolved))
    physical = study.units["physical"]
    if len(spans) == 1:
        low, high = spans[0]
        yield f"Range: {low:g} to {high:g} {physical}, {high - low:g} wide ({protocol.described()})."
    else:
        widths = [high - low for low, high in spans]
        yield f"Range: one for each scan, {min(widths):g} to {max(widths):g} {physical} wide ({protocol.described()})."
    scale = resolved[0].scale
    ranged = f"range {scale[1] - scale[0]:g}" if protocol.data_range == "window" else "range max - min of each slice"
    yield (
        f"Both images are clipped to the window ({100 * clipped:.2g} % of the reference lies outside), "
        f"which becomes {scale[0]:g} to {scale[1]:g}; {ranged}."
    )
    if defined := [f"{study.title(m)}: {METRICS[m].about}" for m in protocol.metrics if METRICS[m].about]:
        yield "; ".join(defined) + "."
    if any(r.colour for r in resolved):
        yield "Colour: PSNR, MAE, RMSE and bias over all channels; every other metric is the mean of the channels'."
    slices = len({(row.scan, row.slice) for row in study.rows if row.slice is not None})
    which = {"body": "that show a body", "all": "of the scans", "inner": "but for the first and last of each scan"}
    patients = len({row.patient for row in study.rows})
    how = "All slices of a scan as one image" if protocol.aggregate == "volume" else "Mean over the slices of a scan"
    yield (
        f"{how}, then over {len(resolved)} scan(s) by patient, then over {patients} patient(s): "
        f"the {slices} slice(s) {which[protocol.slices]}."
    )
    if patients > 1:
        yield f"In brackets: 95 % bootstrap interval of the mean ({RESAMPLES} draws of patients, seed {study.seed})."
    if study.tests:
        yield "Paired Wilcoxon tests over patients, p adjusted for all of them together (Holm):"
    elif len(study.methods) > 1:
        yield f"No paired tests: {patients} patient(s), at least {LEAST_PAIRS} are needed."
    for test in study.tests:
        yield (
            f"  {test.method} against {test.other}, {test.region}, {study.title(test.metric)}: "
            f"{test.difference:+.3g}, p = {test.adjusted:.2g} (n = {test.patients})"
        )
    yield from (f"Known fault of this protocol: {fault}" for fault in protocol.faults)
