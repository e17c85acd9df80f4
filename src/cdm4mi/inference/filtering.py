"""Frequencies of what was taken away from a scan that are put back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft


def put_back(restored: NDArray[Any], scan: NDArray[Any], response: NDArray[np.floating]) -> NDArray[np.float32]:
    """restored + H (scan - restored), of images (..., rows, columns) in their units.

    response: H by the frequencies of ``cosine_frequencies``, (rows, columns). The images are mirrored at their borders
    (discrete cosine transform), so that opposite borders do not mix.
    """
    difference = fft.dctn(np.subtract(scan, restored, dtype=np.float64), axes=(-2, -1), norm="ortho")
    back: NDArray[np.float32] = (restored + fft.idctn(response * difference, axes=(-2, -1), norm="ortho")).astype(
        np.float32
    )
    return back


def cosine_frequencies(rows: int, columns: int) -> NDArray[np.float64]:
    """Frequencies of the discrete cosine transform of an image, cycles a pixel, (rows, columns)."""
    along = (np.arange(n) / (2 * n) for n in (rows, columns))
    y, x = along
    frequencies: NDArray[np.float64] = np.hypot(y[:, None], x)
    return frequencies
