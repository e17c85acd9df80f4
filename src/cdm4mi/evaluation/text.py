"""A study in words and tables: what ``cdm4mi evaluate`` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cdm4mi.evaluation.statistics import LEAST_PAIRS, RESAMPLES, Mean
from cdm4mi.evaluation.tables import Study

SSIM = {
    "ssim_gaussian": "Gaussian window 11 x 11, sigma 1.5",
    "ssim_uniform": "uniform window 7 x 7",
    "ssim_gaussian_padded": "Gaussian window 11 x 11, sigma 1.5, image continued with zeros",
    "ssim_uniform_3d": "uniform window 7 x 7 x 7 over the stack of slices",
}
_DIGITS = {"psnr": ".2f", "vif": ".3f", "coverage": ".3f", "interval_level": ".3f", "cnr_ratio": ".3f"}
_WORDS = {
    "psnr": "PSNR dB",
    "vif": "VIF",
    "spectrum": "spectrum distance dB",
    "cnr_ratio": "CNR over the reference's",
    "interval_level": "interval level",
    "interval_width": "interval width",
    "crps": "CRPS",
    "lpips": "LPIPS",
    "mae": "MAE",
    "rmse": "RMSE",
}
_WITH_UNIT = ("mae", "rmse", "bias", "flicker")
NOTHING = "-"
MOST_PATIENTS = 25
"""More than these are not listed one by one."""


@dataclass(frozen=True)
class TextTable:
    """Cells as they are printed; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(study: Study) -> Iterator[TextTable]:
    """The means; every patient; and the metrics that are not in the first."""
    regions, main = list(study.protocol.regions), study.protocol.main_metrics or study.metrics[:3]
    methods = list(dict.fromkeys(method for method, _ in study.means))
    columns = ["", *(f"{region}\n{title(name, study)}" for region in regions for name in main)]
    label = study.protocol.label
    yield TextTable(
        f"{label}: mean over patients",
        columns,
        [[m, *(_mean_cell(study.means.get((m, r), {}), name) for r in regions for name in main)] for m in methods],
    )
    patients = list(dict.fromkeys(row.patient for row in study.rows))
    if 1 < len(patients) <= MOST_PATIENTS:
        rows = []
        for patient in patients:
            for method in methods:
                by_region = [study.patients.get((method, region), {}).get(patient, {}) for region in regions]
                rows.append([f"{patient}, {method}", *(_cell(s.get(n), n) for s in by_region for n in main)])
        yield TextTable(f"{label}: every patient", columns, rows)
    for region in regions:
        found = [study.means.get((method, region), {}) for method in methods]
        rest = [name for name in study.metrics if name not in main]
        told = [[title(name, study), *(_mean_cell(means, name) for means in found)] for name in rest]
        if rows := [row for row in told if any(cell != NOTHING for cell in row[1:])]:
            yield TextTable(f"{label}: further metrics of the {region}, mean over patients", ["", *methods], rows)


def title(name: str, study: Study) -> str:
    """A metric in words, with its unit."""
    if name in SSIM:
        return "SSIM" if name == next((m for m in study.protocol.metrics if m in SSIM), "") else f"SSIM ({name[5:]})"
    words = _WORDS.get(name, name.replace("_", " "))
    return f"{words} {unit(study)}" if name in _WITH_UNIT or name.startswith("bias_") else words


def unit(study: Study) -> str:
    """Of MAE, RMSE and bias over all scans."""
    units = {ruler.error_unit for ruler in study.rulers.values()}
    return units.pop() if len(units) == 1 else "mixed units"


def caption(study: Study, chosen: str, clipped: float) -> Iterator[str]:
    """What a reader must know to compare these figures with others.

    chosen: why it is this protocol. clipped: share of the reference outside the window.
    """
    protocol = study.protocol
    split = f", split {study.split}" if study.split else ""
    yield f"Protocol: {protocol.label}{split} ({chosen})."
    spans = list(dict.fromkeys((ruler.low, ruler.high) for ruler in study.rulers.values()))
    units = {ruler.unit for ruler in study.rulers.values()}
    physical = units.pop() if len(units) == 1 else "mixed units"
    if len(spans) == 1:
        low, high = spans[0]
        yield f"Range: {low:g} to {high:g} {physical}, {high - low:g} wide ({protocol.described()})."
    else:
        widths = [high - low for low, high in spans]
        yield f"Range: one for each scan, {min(widths):g} to {max(widths):g} {physical} wide ({protocol.described()})."
    scale = next(iter(study.rulers.values())).scale
    ranged = f"range {scale[1] - scale[0]:g}" if protocol.data_range == "window" else "range max - min of each slice"
    yield (
        f"Both images are clipped to the window ({100 * clipped:.2g} % of the reference lies outside), "
        f"which becomes {scale[0]:g} to {scale[1]:g}; {ranged}."
    )
    named = [f"{title(name, study)}: {SSIM[name]}" for name in protocol.metrics if name in SSIM]
    yield "; ".join([*named, f"MAE, RMSE and bias: {unit(study)}"]) + "."
    if any(ruler.colour for ruler in study.rulers.values()):
        yield "Colour: PSNR, MAE, RMSE and bias over all channels; every other metric is the mean of the channels'."
    slices = len({(row.scan, row.slice) for row in study.rows if row.slice is not None})
    which = {"body": "that show a body", "all": "of the scans", "inner": "but for the first and last of each scan"}
    patients = len({row.patient for row in study.rows})
    how = "All slices of a scan as one image" if protocol.aggregate == "volume" else "Mean over the slices of a scan"
    yield (
        f"{how}, then over {len(study.rulers)} scan(s) by patient, then over {patients} patient(s): "
        f"the {slices} slice(s) {which[protocol.slices]}."
    )
    if patients > 1:
        yield f"In brackets: 95 % bootstrap interval of the mean ({RESAMPLES} draws of patients, seed {study.seed})."
    yield from _tests(study, patients)
    yield from (f"Known fault of this protocol: {fault}" for fault in protocol.faults)


def _tests(study: Study, patients: int) -> Iterator[str]:
    if len({method for method, _ in study.means}) < 2:
        return
    if not study.tests:
        yield f"No paired tests: {patients} patient(s), at least {LEAST_PAIRS} are needed."
        return
    yield "Paired Wilcoxon tests over patients, p adjusted for all of them together (Holm):"
    for test in study.tests:
        yield (
            f"  {test.method} against {test.other}, {test.region}, {title(test.metric, study)}: "
            f"{test.difference:+.3g}, p = {test.adjusted:.2g} (n = {test.patients})"
        )


def _mean_cell(by_metric: Mapping[str, Mean], name: str) -> str:
    mean = by_metric.get(name)
    if mean is None or math.isnan(mean.value):
        return NOTHING
    text = _cell(mean.value, name)
    return text if math.isnan(mean.low) else f"{text} [{_cell(mean.low, name)}, {_cell(mean.high, name)}]"


def _cell(value: float | None, name: str) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    return format(value, ".4f" if name in SSIM else _DIGITS.get(name, ".4g"))
