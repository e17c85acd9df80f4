"""From the scores of slices to those of patients and of a study: every patient counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdm4mi.errors import UserError
from cdm4mi.evaluation.metrics import Scores, mean_scores
from cdm4mi.evaluation.statistics import Mean, Number, mean_over_patients

Key = tuple[str, str]
"""Method and region."""


@dataclass(frozen=True)
class Row:
    """Scores of one method in one region: of a slice, or of the whole scan where ``slice`` is None.

    scores: by metric, in the protocol's units; nan where a slice cannot have it (a tissue that it does not show).
    """

    patient: str
    scan: str
    slice: int | None
    method: str
    region: str
    scores: dict[str, Number]


def patient_scores(rows: Sequence[Row]) -> dict[Key, dict[str, Scores]]:
    """By (method, region), then by patient: the mean over the patient's scans, in the order of the rows."""
    scans: dict[Key, dict[str, list[Scores]]] = {}
    for row in rows:
        if row.slice is None:
            scans.setdefault((row.method, row.region), {}).setdefault(row.patient, []).append(row.scores)
    if not scans:
        raise UserError("no scan to average, expected at least one")
    return {key: {patient: mean_scores(s) for patient, s in by.items()} for key, by in scans.items()}


def study_means(patients: Mapping[Key, Mapping[str, Scores]], seed: int = 0) -> dict[Key, dict[str, Mean]]:
    """Mean of each metric over patients with its bootstrap interval, by (method, region); seeded."""
    found = {}
    for key, by_patient in patients.items():
        names = dict.fromkeys(name for scores in by_patient.values() for name in scores)
        found[key] = {
            name: mean_over_patients([s[name] for s in by_patient.values() if name in s], seed) for name in names
        }
    return found
