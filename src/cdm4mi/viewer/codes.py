"""Values as 16-bit codes for the page: exact for whole numbers, as a CT has, else in 65534 steps over their range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    finite = np.isfinite(array)
    values = array if finite.all() else array[finite]
    if values.size == 0:
        return Codes(np.zeros(array.shape, "<u2"), 0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    whole = high - low <= MOST and bool((values == np.rint(values)).all())
    step = 1.0 if whole or high == low else (high - low) / MOST
    codes = np.where(finite, array, low) if values is not array else array
    steps = (codes - np.float32(low)) if whole else (codes.astype(np.float64) - low) / step
    coded = np.rint(steps).astype("<u2") + np.uint16(1)
    coded[~finite] = NO_VALUE
    return Codes(coded, low, step)
