"""Acquisition numbers of a scan, the condition vector of models with conditioning_key adm."""

from __future__ import annotations

import math
from collections.abc import Sequence

Spacing = tuple[float, float, float]
UNKNOWN_SPACING: Spacing = (1.0, 1.0, 1.0)
"""Millimetres along (slices, rows, columns) where a source has no geometry."""


def acquisition_vector(names: Sequence[str], level: float, spacing: Spacing) -> list[float]:
    """The acquisition numbers by the names in ``model.acquisition_vector``, scaled to order 1.

    noise_level: standard deviation on [-1, 1]; pixel_spacing, slice_spacing: the logarithm of millimetres.
    """
    numbers = {
        "noise_level": level,
        "pixel_spacing": math.log(max(spacing[1], 1e-3)),
        "slice_spacing": math.log(max(spacing[0], 1e-3)),
    }
    return [numbers[name] for name in names]
