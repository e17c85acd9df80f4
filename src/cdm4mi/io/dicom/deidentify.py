"""The Basic Application Level Confidentiality Profile of DICOM PS3.15 (annex E), and the names that it gives."""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.basic_profile import action
from cdm4mi.io.dicom.values import item_of, text

_DUMMIES = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0", "US": 0, "UL": 0,
    "SS": 0, "SL": 0, "FL": 0.0, "FD": 0.0, "OB": b"", "OW": b"", "UN": b"",
}  # fmt: skip
_DUMMY_TEXT = "ANONYMIZED"


LEAST_KEY = 16
"""Bytes of a secret that nobody guesses."""


@functools.cache
def _secret_of_this_process() -> bytes:
    return secrets.token_bytes(32)


@dataclass(frozen=True)
class Deidentification:
    """How to apply the profile.

    secret: decides the new patient IDs and UIDs, of which the old ones cannot be told without it; by default one of
    this process, which nobody knows afterwards. burned_in: write images with text burned into the pixels too, and then
    do not claim that the identity is removed.
    """

    secret: bytes = field(default_factory=_secret_of_this_process, repr=False)
    burned_in: bool = False

    @classmethod
    def of_key(cls, key: Path | None, burned_in: bool = False) -> Deidentification:
        """With the bytes of the file ``key`` as the secret. UserError where it cannot be read or is too short."""
        if key is None:
            return cls(burned_in=burned_in)
        try:
            secret = key.read_bytes()
        except OSError as error:
            raise UserError(f"{key}: cannot be read ({error.strerror}), expected a file with a secret") from None
        if len(secret) < LEAST_KEY:
            raise UserError(f"{key}: holds {len(secret)} bytes, expected a secret of at least {LEAST_KEY}")
        return cls(secret, burned_in)

    @property
    def random(self) -> bool:
        """Whether the secret is the one of this process."""
        return self.secret == _secret_of_this_process()

    def uid(self, uid: str) -> str:
        """The UID that takes the place of one from the source: the same for the same, so that references hold.

        UIDs that the standard defines (classes, transfer syntaxes, frames of atlases) stay.
        """
        if not uid or uid.startswith("1.2.840.10008."):
            return uid
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=5).int}"

    def patient_id(self, dataset: Dataset) -> str:
        """The PatientID that takes the place of the source's: the same for a patient, another for another.

        A patient without an ID is told by name and date of birth, and one without these by the study.
        """
        named = [text(dataset, keyword) for keyword in ("PatientID", "IssuerOfPatientID")]
        if not named[0]:
            named = [text(dataset, keyword) for keyword in ("PatientName", "PatientBirthDate")]
        if not named[0]:
            named = [text(dataset, "StudyInstanceUID")]
        return f"PATIENT-{self._digest('patient', *named).hex()[:16].upper()}"

    def check(self, datasets: Iterable[Dataset], name: str) -> None:
        """UserError for images with text burned into the pixels, which the profile does not look at."""
        if not self.burned_in and any(_is_burned_in(dataset) for dataset in datasets):
            raise UserError(
                f"{name}: BurnedInAnnotation is YES, and the text in the pixels would stay; expected images without "
                "(`burned_in` writes them and does not claim that the identity is removed)"
            )

    def apply(self, dataset: Dataset) -> None:
        """Apply the profile in place, sequences included, and record that it was applied.

        Where the table leaves a choice that depends on the object, the mildest action is taken (a dummy before an empty
        value before removal), so that the object stays valid. Pixels are not looked at: text burned into them stays.
        """
        patient_id = self.patient_id(dataset)
        _clean(dataset, self.uid)
        dataset.PatientID = patient_id
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        if _is_burned_in(dataset):
            dataset.PatientIdentityRemoved = "NO"
            dataset.DeidentificationMethod = "DICOM PS3.15 Basic Profile on the header alone, by cdm4mi"
            return
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "DICOM PS3.15 Basic Profile, by cdm4mi"
        meaning = "Basic Application Confidentiality Profile"
        code = item_of(CodeValue="113100", CodingSchemeDesignator="DCM", CodeMeaning=meaning)
        dataset.DeidentificationMethodCodeSequence = Sequence([code])

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self.secret, "\0".join(parts).encode("utf-8", "surrogateescape"), hashlib.sha256)


def deidentification(asked: bool | Deidentification) -> Deidentification | None:
    """How to de-identify where a caller asks for it by True or in detail, else None."""
    return Deidentification() if asked is True else asked or None


def _is_burned_in(dataset: Dataset) -> bool:
    return text(dataset, "BurnedInAnnotation").upper() == "YES"


def _clean(dataset: Dataset, new_uid: Callable[[str], str]) -> None:
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
                _clean(item, new_uid)
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
