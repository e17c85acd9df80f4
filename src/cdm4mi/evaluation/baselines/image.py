"""What every baseline asks of its image."""

from __future__ import annotations

import numpy as np

from cdm4mi.errors import UserError


def checked(y: np.ndarray, sigma: float) -> np.ndarray:
    """The image (rows, columns) in float32. Raises UserError for another shape, values not finite, or a bad sigma."""
    y = np.asarray(y, dtype=np.float32)
    if y.ndim != 2:
        raise UserError(f"image has shape {y.shape}, expected (rows, columns)")
    if not np.isfinite(y).all():
        raise UserError("image has pixels that are not finite, expected none")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise UserError(f"sigma is {sigma}, expected a finite number of at least 0")
    return y
