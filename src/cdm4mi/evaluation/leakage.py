"""Leakage: a test patient who was seen in training, found by name and by pixels, stops a study."""

from __future__ import annotations

from collections.abc import Sequence

from cdm4mi.data.names import patient_hash
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.scans import StudyScan
from cdm4mi.models.about import TrainingData


def refuse_leaks(model: str, data: TrainingData, scans: Sequence[StudyScan]) -> None:
    """Refuse to judge a model on patients whom it was trained on or chosen by.

    data: what its checkpoint records of its data (``About.data``). Raises UserError with the patient's pseudonym and
    how the match was found.
    """
    seen_slices = set(data.slice_hashes)
    seen = {"training": set(data.patients_train), "validation": set(data.patients_val)}
    for scan in scans:
        names = {patient_hash(name) for name in scan.names}
        for what, patients in seen.items():
            if names & patients:
                raise UserError(f"{model}: found test patient {scan.patient} among its {what} patients, expected none")
        shared = {digest[:8].hex() for digest in scan.hashes} & seen_slices
        if shared:
            raise UserError(
                f"{model}: found {len(shared)} slice(s) of test patient {scan.patient} among the pixels that it was "
                "trained on (under another name), expected none"
            )


def checked_by(data: TrainingData) -> str:
    """What the check could look at, in words, for the record of a study."""
    ways = [words for words, seen in (("patients", data.patients_train), ("pixels", data.slice_hashes)) if seen]
    return " and ".join(ways) or "nothing: the model does not say what it was trained on"
