"""The Basic Application Level Confidentiality Profile of DICOM PS3.15 (annex E) on one data set."""

from __future__ import annotations

import hashlib
import uuid

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cdm4mi.io.dicom.basic_profile import action
from cdm4mi.io.dicom.values import item_of

_DUMMIES = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0", "US": 0, "UL": 0,
    "SS": 0, "SL": 0, "FL": 0.0, "FD": 0.0, "OB": b"", "OW": b"", "UN": b"",
}  # fmt: skip
_DUMMY_TEXT = "ANONYMIZED"


def new_uid(uid: str) -> str:
    """The UID that takes the place of one from the source: always the same for the same, so that references hold.

    UIDs that the standard defines (classes, transfer syntaxes, frames of atlases) stay.
    """
    if not uid or uid.startswith("1.2.840.10008."):
        return uid
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(f'deidentified {uid}'.encode()).digest()[:16], version=5).int}"


def deidentify(dataset: Dataset) -> None:
    """Apply the profile in place, sequences included, and record that it was applied.

    Where the table leaves a choice that depends on the object, the mildest action is taken (a dummy before an empty
    value before removal), so that the object stays valid. Pixels are not looked at: text burned into them stays.
    """
    _clean(dataset)
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.DeidentificationMethod = "DICOM PS3.15 Basic Profile, by cdm4mi"
    meaning = "Basic Application Confidentiality Profile"
    code = item_of(CodeValue="113100", CodingSchemeDesignator="DCM", CodeMeaning=meaning)
    dataset.DeidentificationMethodCodeSequence = Sequence([code])


def _clean(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        letters = action(int(tag))
        if letters == "X":
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            if letters == "Z":
                element.value = Sequence([])
            for item in element.value:
                _clean(item)
        elif "U" in letters:
            many = element.VM > 1
            element.value = [new_uid(str(u)) for u in element.value] if many else new_uid(str(element.value or ""))
        elif "D" in letters:
            if element.VR == "UI":
                element.value = new_uid(str(element.value or ""))
            else:
                element.value = _DUMMIES.get(element.VR, _DUMMY_TEXT)
        elif "Z" in letters:
            element.value = b"" if element.VR in ("OB", "OW", "UN") else None if element.VR != "PN" else ""
