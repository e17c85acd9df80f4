"""Strength below 1: what was taken away comes back at the frequencies of small lesions, where noise is weakest first.

A blend of the restored image with the noisy one brings noise of all frequencies back; what a small lesion lost lies at
low ones alone, where the noise of many scanners is weak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cdm4mi.inference.filtering import cosine_frequencies, put_back

AREA = 20.0
"""Pixels of the lesion: a disc of 5 pixels across."""
CELL = 1 / 64
"""Cycles a pixel over which the power of what was taken away is averaged."""
HALVINGS = 60
"""Of the interval of the logarithm of mu."""


def weakened(restored: NDArray[Any], scan: NDArray[Any], strength: float) -> NDArray[np.float32]:
    """Restored images (..., rows, columns) with a part of what was taken away put back.

    restored + B (scan - restored), in the images' units, with B = mu L / (mu L + N): the Wiener filter for lesions of
    ``AREA`` in noise. L = exp(-pi AREA f^2) is the power spectrum of a Gaussian as wide as such a disc, N that of
    scan - restored, averaged over all directions, and mu is such that 1 - strength of a lesion comes back that is lost
    as a whole: sum(B L) = (1 - strength) sum(L), as of a blend. strength: 0, the scan, to 1, ``restored``; every image
    has a filter of its own.
    """
    if strength >= 1:
        return restored.astype(np.float32)
    if strength <= 0:
        return scan.astype(np.float32)
    planes, noisy = (images.reshape(-1, *images.shape[-2:]) for images in (restored, scan))
    out = np.stack([put_back(x, y, response(y - x, strength)) for x, y in zip(planes, noisy, strict=True)])
    return out.reshape(restored.shape)


def response(taken: NDArray[Any], strength: float) -> NDArray[np.float64]:
    """The filter B of ``weakened`` for what was taken away from an image, by the frequencies of ``put_back``."""
    frequencies = cosine_frequencies(*taken.shape)
    cells = (frequencies / CELL).astype(int)
    counts = np.bincount(cells.ravel())
    powers = np.square(fft.dctn(taken.astype(np.float64), norm="ortho"))
    noise, middles = (
        np.bincount(cells.ravel(), values.ravel()) / np.maximum(counts, 1) for values in (powers, frequencies)
    )
    noise /= max(noise.max(), np.finfo(float).tiny)
    lesion = np.exp(-np.pi * AREA * np.square(middles))
    weights = counts * lesion / np.sum(counts * lesion)
    low, high = -50.0, 50.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if np.sum(weights * _wiener(lesion, noise, middle)) < 1 - strength:
            low = middle
        else:
            high = middle
    found: NDArray[np.float64] = _wiener(lesion, noise, high)[cells]
    return found


def _wiener(lesion: NDArray[np.float64], noise: NDArray[np.float64], log_mu: float) -> NDArray[np.float64]:
    wanted = np.exp(log_mu) * lesion
    share: NDArray[np.float64] = wanted / (wanted + noise)
    return share
