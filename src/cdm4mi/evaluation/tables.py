"""Scores as files: CSV with one line a slice, scan and patient, or JSON with the protocol, the means and the tests."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdm4mi.evaluation.aggregate import Key, Row, Scores, patient_scores, study_means
from cdm4mi.evaluation.protocol import Protocol
from cdm4mi.evaluation.ruler import Ruler
from cdm4mi.evaluation.statistics import Mean, PairedTest, paired_tests
from cdm4mi.files import replacing_file


@dataclass(frozen=True)
class Study:
    """All that was found for some scans under one protocol. ``split``: hash of the split they come from, if known."""

    protocol: Protocol
    rows: list[Row]
    rulers: dict[str, Ruler]
    patients: dict[Key, dict[str, Scores]]
    means: dict[Key, dict[str, Mean]]
    tests: list[PairedTest]
    seed: int = 0
    split: str | None = None

    @property
    def metrics(self) -> list[str]:
        """Every metric that some row has, in the order of the protocol."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))


def study_of(
    protocol: Protocol,
    rows: Sequence[Row],
    rulers: Mapping[str, Ruler],
    method: str,
    tested: Sequence[str] | None = None,
    seed: int = 0,
    split: str | None = None,
) -> Study:
    """Rows brought together by patient, with means, intervals, and tests of ``method`` against the others.

    rulers: by scan. tested: the metrics that tests are made of, by default PSNR, the protocol's first SSIM and MAE.
    """
    patients = patient_scores(rows)
    return Study(
        protocol,
        list(rows),
        dict(rulers),
        patients,
        study_means(patients, seed),
        paired_tests(patients, method, protocol.main_metrics if tested is None else tested),
        seed,
        split,
    )


def write_csv(path: Path, study: Study) -> None:
    """One line a slice, a scan, a patient and method and region, each with its protocol and window."""
    names = study.metrics
    with replacing_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["level", "patient", "scan", "slice", "method", "region", *names, "range_low", "range_high", "protocol"]
        )
        for row in study.rows:
            ruler = study.rulers[row.scan]
            level, number = ("scan", "") if row.slice is None else ("slice", str(row.slice))
            where = [level, row.patient, row.scan, number, row.method, row.region]
            writer.writerow([*where, *_cells(row.scores, names), ruler.low, ruler.high, study.protocol.label])
        for (method, region), by_patient in study.patients.items():
            for patient, scores in by_patient.items():
                where = ["patient", patient, "", "", method, region]
                writer.writerow([*where, *_cells(scores, names), "", "", study.protocol.label])


def write_json(path: Path, study: Study) -> None:
    """Protocol, ranges, means with their intervals, tests, patients and every row; null for what cannot be told."""
    content = {
        "protocol": {**study.protocol.model_dump(), "label": study.protocol.label, "digest": study.protocol.digest},
        "split": study.split,
        "seed": study.seed,
        "ranges": {
            scan: {"low": ruler.low, "high": ruler.high, "unit": ruler.unit, "modality": ruler.modality}
            for scan, ruler in study.rulers.items()
        },
        "means": [
            {"method": method, "region": region, "metric": name, **asdict(mean)}
            for (method, region), by_metric in study.means.items()
            for name, mean in by_metric.items()
        ],
        "tests": [asdict(test) for test in study.tests],
        "patients": [
            {"method": method, "region": region, "patient": patient, "scores": scores}
            for (method, region), by_patient in study.patients.items()
            for patient, scores in by_patient.items()
        ],
        "rows": [asdict(row) for row in study.rows],
    }
    with replacing_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(_plain(content), file, indent=1, allow_nan=False)
        file.write("\n")


def _cells(scores: Scores, names: Sequence[str]) -> list[str]:
    return [f"{scores[name]:.6g}" if name in scores and not math.isnan(scores[name]) else "" for name in names]


def _plain(value: Any) -> Any:
    """JSON knows no nan and no infinity: null, and the text "inf" for the PSNR of equal images."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
