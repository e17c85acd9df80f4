"""Blobs that a lesion-free image shows and the clean one does not: invented by a restoration, or by the noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal


def matched_filter(profile: NDArray[np.floating]) -> NDArray[np.float64]:
    """The filter (side, side) of mean zero whose output at a lesion's centre is the lesion's contrast.

    profile: the lesion for a contrast of 1, centred, (side, side), with surroundings that are compared with it.
    """
    centred = profile - profile.mean()
    filter: NDArray[np.float64] = centred / np.sum(profile * centred)
    return filter


def count_blobs(
    difference: NDArray[np.floating], profile: NDArray[np.floating], contrast: float, where: NDArray[np.bool_]
) -> int:
    """How many blobs of at least half a contrast, of its sign, lie in the pixels ``where``.

    difference: (rows, columns), an image without lesions minus the clean one. A blob is a maximum of the matched filter
    within the filter's half width that reaches the threshold.
    """
    found = signal.fftconvolve(difference, matched_filter(profile)[::-1, ::-1], mode="same") * np.sign(contrast)
    peaks = (found == ndimage.maximum_filter(found, len(profile) // 2)) & (found >= abs(contrast) / 2)
    return int((peaks & where).sum())
