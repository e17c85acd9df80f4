"""The scores of some scans under one protocol: rows, means, tests; as JSON, which reads back, and as CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cdm4mi.evaluation.aggregate import Row, patient_scores, study_means
from cdm4mi.evaluation.metrics import ERROR, NONE, PHYSICAL, Scores, title
from cdm4mi.evaluation.protocol import Protocol, ProtocolRecord
from cdm4mi.evaluation.resolve import ResolvedProtocol
from cdm4mi.evaluation.statistics import Mean, Number, PairedTest, paired_tests
from cdm4mi.evaluation.table import text_cell
from cdm4mi.files import replacing_file

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class ScoreMean(Mean):
    """The mean of one metric."""

    method: str
    region: str
    metric: str


@dataclass(frozen=True)
class PatientScores:
    """A patient's means over the scans."""

    method: str
    region: str
    patient: str
    scores: dict[str, Number]


@dataclass(frozen=True)
class Range:
    """Of one scan: the window's ends in physical units, and their unit."""

    low: float
    high: float
    unit: str
    modality: str | None


class Study(BaseModel):
    """All that was found for some scans under one protocol.

    format: 1 had no such number. split: hash of the split that the scans come from, if there is one. ranges: by scan.
    means: over patients. tests: of one method against the others.
    """

    model_config = ConfigDict(frozen=True)
    format: int = Field(1, ge=1, le=FORMAT)
    protocol: ProtocolRecord
    split: str | None
    seed: int
    ranges: dict[str, Range]
    means: list[ScoreMean]
    tests: list[PairedTest]
    patients: list[PatientScores]
    rows: list[Row]

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric that some row has, in the order of the protocol."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    @cached_property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(mean.method for mean in self.means))

    @cached_property
    def units(self) -> dict[str, str]:
        """Of errors, and of physical values, over all scans."""
        found = {r.unit for r in self.ranges.values()}
        physical = found.pop() if len(found) == 1 else "mixed units"
        low, high = self.protocol.scale or (0, 1)
        return {PHYSICAL: physical, ERROR: f"on [{low:g}, {high:g}]" if self.protocol.errors_on_scale else physical}

    def mean(self, method: str, region: str, metric: str) -> Mean:
        """A mean over patients; nan where there is none."""
        return self._means.get((method, region, metric), Mean())

    @cached_property
    def _means(self) -> dict[tuple[str, str, str], Mean]:
        return {(mean.method, mean.region, mean.metric): mean for mean in self.means}

    def title(self, metric: str) -> str:
        """A metric in words, with its unit."""
        return title(metric, self.metrics, self.units)


def study_of(
    protocol: Protocol,
    rows: Sequence[Row],
    resolved: Mapping[str, ResolvedProtocol],
    method: str,
    tested: Sequence[str] | None = None,
    seed: int = 0,
    split: str | None = None,
) -> Study:
    """Rows brought together by patient, with means, intervals, and tests of ``method`` against the others.

    resolved: by scan. tested: the metrics that tests are made of, by default PSNR, the protocol's first SSIM and MAE.
    """
    patients = patient_scores(rows)
    return Study(
        format=FORMAT,
        protocol=protocol.record(),
        split=split,
        seed=seed,
        ranges={scan: Range(r.low, r.high, r.unit, r.modality) for scan, r in resolved.items()},
        means=[
            ScoreMean(**vars(mean), method=m, region=region, metric=name)
            for (m, region), by_metric in study_means(patients, seed).items()
            for name, mean in by_metric.items()
        ],
        tests=paired_tests(patients, method, protocol.main_metrics if tested is None else tested),
        patients=[
            PatientScores(m, region, patient, scores)
            for (m, region), by_patient in patients.items()
            for patient, scores in by_patient.items()
        ],
        rows=list(rows),
    )


def write_csv(path: Path, study: Study) -> None:
    """One line a slice, a scan, a patient and method and region, each with its protocol and window."""
    names, label = study.metrics, text_cell(study.protocol.label)

    def figures(scores: Scores) -> list[str]:
        return ["" if math.isnan(scores.get(name, NONE)) else f"{scores[name]:.6g}" for name in names]

    with replacing_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["level", "patient", "scan", "slice", "method", "region", *names, "range_low", "range_high", "protocol"]
        )
        for row in study.rows:
            level, number = ("scan", "") if row.slice is None else ("slice", str(row.slice))
            where, window = (row.patient, row.scan, number, row.method, row.region), study.ranges[row.scan]
            writer.writerow(
                [level, *map(text_cell, where), *figures(row.scores), window.low, window.high, text_cell(label)]
            )
        for of in study.patients:
            writer.writerow(
                [
                    "patient",
                    *map(text_cell, (of.patient, "", "", of.method, of.region)),
                    *figures(of.scores),
                    "",
                    "",
                    text_cell(label),
                ]
            )


def write_json(path: Path, study: Study) -> None:
    """Protocol, ranges, means with their intervals, tests, patients and every row; null for nan, "inf" for infinity."""
    with replacing_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(study.model_dump(mode="json"), file, indent=1, allow_nan=False)
        file.write("\n")
