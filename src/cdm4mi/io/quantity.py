"""What the numbers of an MR image are: a magnitude, a phase, a field in Hz, a complex number's part; of which echo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.values import items, number, private_value, text, texts
from cdm4mi.io.volume import Volume

PHASE, REAL, IMAGINARY, VELOCITY, FIELD = "phase", "real part", "imaginary part", "velocity", "field map"
_COMPONENTS = {"PHASE": PHASE, "REAL": REAL, "IMAGINARY": IMAGINARY}  # ComplexImageComponent
_WORDS = {
    "P": PHASE, "PHASE": PHASE, "R": REAL, "REAL": REAL, "I": IMAGINARY, "IMAGINARY": IMAGINARY, "VELOCITY": VELOCITY,
}  # fmt: skip
_UNITS = {"HZ": FIELD, "MILLIRADIALS": PHASE, "MILLIRADIANS": PHASE, "RADIANS": PHASE}  # RescaleType
_GE = {1: PHASE, 2: REAL, 3: IMAGINARY}  # (0043,102F), the kind of a GE image
_FIELD_MAP = re.compile(r"(FIELD|B0)[ _]?MAP|\bFMAP\b")
# File names of BIDS, and the endings that dcm2niix gives
_NAMES = (
    (re.compile(r"_(phase[12]?|phasediff|ph)$|_part-phase(_|$)"), PHASE),
    (re.compile(r"_(fieldmap|fieldmaphz)$"), FIELD),
    (re.compile(r"_real$|_part-real(_|$)"), REAL),
    (re.compile(r"_imaginary$|_part-imag(_|$)"), IMAGINARY),
)


def quantity_of(groups: Sequence[Dataset]) -> str:
    """What an MR image or a frame of one holds: "phase", "field map" ..., "" for a magnitude or another modality.

    ``groups``: the data sets that describe it, the most specific first (PS3.3 C.8.13.3, C.7.6.16.2).
    """
    if text(groups[-1], "Modality") != "MR":
        return ""
    component, unit = "", ""
    kinds: list[str] = []
    ge: Any = None
    for group in groups:
        for holder in (*items(group, "MRImageFrameTypeSequence")[:1], group):
            component = component or text(holder, "ComplexImageComponent").upper()
            kinds = kinds or texts(holder, "FrameType")[2:] or texts(holder, "ImageType")[2:]
        for holder in (*items(group, "PixelValueTransformationSequence")[:1], group):
            unit = unit or text(holder, "RescaleType").upper()
        ge = private_value(group, 0x0043, "GEMS_PARM_01", 0x2F) if ge is None else ge
    joined = "\\".join(kinds).upper()
    if _FIELD_MAP.search(joined) or "B0" in joined.split("\\"):
        return FIELD
    words = re.split(r"[\\_ ]", joined.replace("PHASE CONTRAST", ""))
    found = [_WORDS[word] for word in words if word in _WORDS]
    if VELOCITY in found:
        return VELOCITY
    return _COMPONENTS.get(component) or _UNITS.get(unit) or (found[0] if found else _GE.get(ge, ""))


def echo_time(groups: Sequence[Dataset]) -> float | None:
    """Echo time (ms) of an MR image or a frame of one, None where it is not stated. ``groups`` as ``quantity_of``."""
    if text(groups[-1], "Modality") != "MR":
        return None
    for group in groups:
        for echo in items(group, "MREchoSequence")[:1]:
            return number(echo, "EffectiveEchoTime")
    return number(groups[-1], "EchoTime")


def echo_number(groups: Sequence[Dataset]) -> float | None:
    """EchoNumbers of an MR image, None where it is not stated. ``groups`` as ``quantity_of``."""
    return number(groups[-1], "EchoNumbers") if text(groups[-1], "Modality") == "MR" else None


def quantity_of_name(name: str) -> str:
    """The same for a file whose header does not say, by the names that BIDS and dcm2niix give; "" where none fits."""
    stem = name.rsplit("/", 1)[-1].split(".")[0]
    return next((quantity for pattern, quantity in _NAMES if pattern.search(stem)), "")


def refuse_other_quantities(volume: Volume, name: str, remedy: str = "") -> None:
    """UserError for a volume that holds no magnitudes; ``remedy``: how to have it done all the same."""
    if volume.quantity:
        why = {
            PHASE: "whose values wrap round",
            FIELD: "in Hz, with noise that differs from voxel to voxel",
            VELOCITY: "with noise that differs from voxel to voxel",
        }.get(volume.quantity, "with values around 0 and no window from 0 up")
        article = "an" if volume.quantity[0] in "aeiou" else "a"
        raise UserError(f"{name}: is {article} {volume.quantity}, {why}; expected a magnitude image{remedy}")
