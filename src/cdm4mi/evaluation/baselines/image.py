"""What every baseline asks of its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError


def checked(y: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """The image (rows, columns) in float32. Raises UserError for another shape, values not finite, or a bad sigma."""
    y = np.asarray(y, dtype=np.float32)
    if y.ndim != 2:
        raise UserError(f"image has shape {y.shape}, expected (rows, columns)")
    if not np.isfinite(y).all():
        raise UserError("image has pixels that are not finite, expected none")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise UserError(f"sigma is {sigma}, expected a finite number of at least 0")
    return y
