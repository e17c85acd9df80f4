"""What the page's buttons set: windows of CT in HU, of other scans by percentiles; ranges of differences and maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.intensity import foreground

PERCENTILES = ((0.0, 99.5), (1.0, 99.0), (5.0, 95.0))
"""Of the foreground; 0 stands for the value 0, as in a magnitude image."""
MOST_COUNTED = 2_000_000
"""Voxels that a percentile is taken of, spread evenly over the scan."""


@dataclass
class Preset:
    """A window from ``low`` to ``high``, physical units, and the name of its button."""

    name: str
    low: float
    high: float


CT = (
    Preset("Soft tissue", -160.0, 240.0),
    Preset("Lung", -1350.0, 150.0),
    Preset("Bone", -500.0, 1300.0),
    Preset("Brain", 0.0, 80.0),
)
"""Windows of 400, 1500, 1800 and 80 HU about 40, -600, 400 and 40 HU."""


def presets(array: NDArray[Any], modality: str) -> list[Preset]:
    """The windows for a scan: those of CT, else three of percentiles of its foreground and the whole range."""
    if modality == "CT":
        return list(CT)
    values = counted(array)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    inside = values[foreground(values, modality)] if values.size else values
    found = []
    for least, most in PERCENTILES if inside.size else ():
        start = min(0.0, low) if least == 0 else float(np.percentile(inside, least))
        found.append(Preset(f"{least:g}–{most:g} %", start, float(np.percentile(inside, most))))
    found.append(Preset("All", low, high))
    return [Preset(p.name, p.low, p.high if p.high > p.low else p.low + 1.0) for p in found]


def greatest(array: NDArray[Any]) -> float:
    """The 99.5th percentile of the magnitudes, rounded up to two digits; 1 where all are 0."""
    values = np.abs(counted(array))
    found = float(np.percentile(values, 99.5)) if values.size else 0.0
    if found <= 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(found)) - 1)
    return math.ceil(found / unit - 1e-9) * unit


def counted(array: NDArray[Any]) -> NDArray[Any]:
    """Finite values of at most ``MOST_COUNTED`` voxels, spread evenly over the array."""
    flat = array.reshape(-1)
    # An odd step: an even one would take every value from the same columns of an image.
    values = flat[:: (flat.size // MOST_COUNTED) | 1]
    finite: NDArray[Any] = values[np.isfinite(values)]
    return finite
