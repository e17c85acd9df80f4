"""Simulated anatomy-like slices, for training without data and for tests."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cdm4mi.data.phantom_ct import draw_ct
from cdm4mi.data.phantom_mr import draw_mr
from cdm4mi.errors import UserError

PHANTOM_WINDOWS = {"CT": (-1000.0, 1000.0), "MR": (0.0, 1000.0)}
"""The intensities, in the units below, that training maps to -1 and +1."""


def phantom(kind: Literal["CT", "MR"], seed: int, size: int = 128) -> NDArray[np.float32]:
    """Draw one noise-free slice.

    :param kind: ``"CT"``: chest, abdomen, pelvis or head in HU, air -1000, clipped to [-1024, 2000]; ``"MR"``: a head
        in arbitrary scanner units, 0 to about 1000, in one of five weightings, some without the skull.
    :param seed: the same seed gives the same slice everywhere (to rounding); another seed, other anatomy.
    :param size: side of the square slice in pixels, at least 16.
    :returns: (size, size) float32 in the units above.
    :raises UserError: for another kind or a size below 16.
    """
    if kind not in ("CT", "MR"):
        raise UserError(f"phantom kind is {kind!r}, expected CT or MR")
    if size < 16:
        raise UserError(f"phantom size is {size}, expected at least 16 pixels")
    rng = np.random.default_rng([seed, "CT MR".index(kind)])
    image = draw_ct(rng, size) if kind == "CT" else draw_mr(rng, size)
    # what any scanner does to a sharp edge
    image = gaussian_filter(image, rng.uniform(0.3, 0.6), mode="nearest")
    low, high = (-1024.0, 2000.0) if kind == "CT" else (0.0, 1500.0)
    clipped: NDArray[np.float32] = np.clip(image, low, high).astype(np.float32)
    return clipped
