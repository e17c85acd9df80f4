"""Single attributes of a DICOM data set, read fast and without exceptions: absent and malformed are None or "".

pydicom turns raw bytes into values with much care, at 25 microseconds each; a series has many slices, so the few
attributes that every slice is asked for are decoded from the raw bytes here.
"""

from __future__ import annotations

import math
import re
import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FD": "d", "FL": "f", "US or SS": "H"}


@cache
def _tag(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return BaseTag(tag), dictionary_VR(tag)


def _raw(dataset: Dataset, keyword: str) -> tuple[bytes | None, str, bool]:
    """The undecoded bytes where there still are some, the VR that they have, and whether they are little endian."""
    tag, vr = _tag(keyword)
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return None, vr, True
    return element.value, element.VR or vr, element.is_little_endian


def _values(dataset: Dataset, keyword: str) -> list[float]:
    """All numbers of an attribute; an exception where it is malformed."""
    raw, vr, little = _raw(dataset, keyword)
    if raw is not None and vr in ("DS", "IS"):
        return [float(part) for part in raw.strip(b" \0").split(b"\\")]
    if raw is not None and vr in _BINARY:
        code = ("<" if little else ">") + _BINARY[vr]
        return [float(value) for (value,) in struct.iter_unpack(code, raw)]
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, (int, float)):
        return [float(value)]
    return [float(part) for part in (value if not isinstance(value, (str, bytes)) else [value])]


def numbers(dataset: Dataset, keyword: str, count: int) -> NDArray[Any] | None:
    """``count`` finite numbers of an attribute (float64), or None where they are absent or malformed."""
    try:
        found = _values(dataset, keyword)
    except Exception:
        return None
    return np.array(found) if len(found) == count and all(map(math.isfinite, found)) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    try:
        found = _values(dataset, keyword)
    except Exception:
        return None
    return found[0] if len(found) == 1 and math.isfinite(found[0]) else None


def whole(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """One whole number, or ``default``."""
    found = number(dataset, keyword)
    return default if found is None else int(found)


def text(dataset: Dataset, keyword: str) -> str:
    """One stripped string (several values joined by a backslash), "" where it is absent."""
    try:
        raw, vr, _ = _raw(dataset, keyword)
        if raw is not None and vr in ("UI", "CS", "DA", "TM", "DT", "DS", "IS"):  # VRs of plain ASCII
            return raw.decode("latin-1").strip(" \0")
        value = dataset.get(keyword)
    except Exception:
        return ""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(v) for v in value)
    return str(value).strip()


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as strings."""
    found = text(dataset, keyword)
    return [part.strip() for part in found.split("\\")] if found else []


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none where it is absent or malformed."""
    tag, _ = _tag(keyword)
    if tag not in dataset:
        return []
    try:
        value = dataset[tag].value
        return [item for item in value if isinstance(item, Dataset)]
    except Exception:
        return []


def private_value(dataset: Dataset, group: int, creator: str, element: int) -> Any:
    """Value of a private element, by its block's creator and its last two digits; None where it is absent."""
    if not any(tag >> 16 == group for tag in dataset.keys()):  # noqa: SIM118 (not the elements, which would be decoded)
        return None
    try:
        return dataset.private_block(group, creator)[element].value
    except Exception:
        return None


def item_of(**attributes: Any) -> Dataset:
    """A data set (the item of a sequence, say) of these attributes, by keyword."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def where(error: BaseException) -> str:
    """The tag that a message of pydicom names, as " (gggg,eeee)" or ""; the rest may hold patient data."""
    found = re.search(r"\(([0-9A-Fa-f]{4}),\s?([0-9A-Fa-f]{4})\)", str(error))
    return f" ({found[1]},{found[2]})" if found else ""
