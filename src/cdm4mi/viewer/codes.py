"""Values as 16-bit codes for the page: exact for whole numbers, as a CT has, else in 65534 steps over their range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.io.arrays import count_where, planes

NO_VALUE = 0
"""The code of what is not a finite number."""
MOST = 65534
"""Steps between the least and the greatest value."""


@dataclass
class Codes:
    """value = low + (code - 1) * step, physical units; codes: uint16 (little-endian), NO_VALUE where there is none."""

    codes: NDArray[np.uint16]
    low: float
    step: float


def encoded(array: NDArray[Any]) -> Codes:
    """Encode an array of floats. Whole numbers that span at most 65534 come back exactly, others to half a step."""
    shape, array = array.shape, np.atleast_2d(array)
    spans = [(plane[known].min(), plane[known].max()) for plane in planes(array) if (known := np.isfinite(plane)).any()]
    if not spans:
        return Codes(np.zeros(shape, "<u2"), 0.0, 1.0)
    low, high = float(min(least for least, _ in spans)), float(max(most for _, most in spans))
    whole = high - low <= MOST and not count_where(array, lambda plane: np.isfinite(plane) & (plane != np.rint(plane)))
    step = 1.0 if whole or high == low else (high - low) / MOST
    codes = np.empty(array.shape, "<u2")
    for coded, plane in zip(planes(codes), planes(array), strict=True):  # which keeps the memory of the steps small
        known = np.isfinite(plane)
        coded[...] = np.rint((np.where(known, plane, low).astype(np.float64) - low) / step).astype("<u2") + np.uint16(1)
        coded[~known] = NO_VALUE
    return Codes(codes.reshape(shape), low, step)
