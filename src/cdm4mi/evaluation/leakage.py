"""Leakage: a test patient who was seen in training, found by name and by pixels, stops a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdm4mi.data.names import patient_hash
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.scans import StudyScan

SEEN = {"patients_train": "training", "patients_val": "validation"}
SLICES = "slice_hashes"
"""Key of a model's record of its data: the first eight bytes of each seen slice's hash, in hex."""


def refuse_leaks(model: str, data: Mapping[str, Any], scans: Sequence[StudyScan]) -> None:
    """Refuse to judge a model on patients whom it was trained on or chosen by.

    data: what its checkpoint records of its data (``about["data"]``). Raises UserError with the patient's pseudonym and
    how the match was found.
    """
    seen_slices = set(data.get(SLICES, ()))
    for scan in scans:
        names = {patient_hash(name) for name in scan.names}
        for key, what in SEEN.items():
            if names & set(data.get(key, ())):
                raise UserError(f"{model}: found test patient {scan.patient} among its {what} patients, expected none")
        shared = {digest[:8].hex() for digest in scan.hashes} & seen_slices
        if shared:
            raise UserError(
                f"{model}: found {len(shared)} slice(s) of test patient {scan.patient} among the pixels that it was "
                "trained on (under another name), expected none"
            )


def checked_by(data: Mapping[str, Any]) -> str:
    """What the check could look at, in words, for the record of a study."""
    ways = [words for key, words in (("patients_train", "patients"), (SLICES, "pixels")) if data.get(key)]
    return " and ".join(ways) or "nothing: the model does not say what it was trained on"
