"""Low frequencies of a restored slice taken from the scan, so that means over large areas do not drift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.inference.filtering import cosine_frequencies, put_back

EDGE = 0.5
"""Standard deviation of the Gaussian edge of the filter, over the cut-off."""
USUAL = 0.02
"""Cut-off in cycles a pixel, areas of 50 pixels: 5 % of the standard deviation of white noise comes back with it."""


def keep_low_frequencies(restored: NDArray[Any], scan: NDArray[Any], cutoff: float) -> NDArray[np.float32]:
    """Replace the low frequencies of restored images (..., rows, columns) by those of the scan.

    restored + H (scan - restored), in the images' units. H is 1 up to ``cutoff`` (cycles a pixel) and falls off beyond
    as a Gaussian, exp(-(f - cutoff)^2 / (2 (EDGE cutoff)^2)), as a sharp end would ring about edges. Of white noise 2.6
    cutoff times its standard deviation comes back.
    """
    return put_back(restored, scan, low_pass((restored.shape[-2], restored.shape[-1]), cutoff))


def low_pass(shape: tuple[int, int], cutoff: float) -> NDArray[np.float64]:
    """The filter H of ``keep_low_frequencies``, by the frequencies of the discrete cosine transform (rows, columns)."""
    beyond = np.maximum(cosine_frequencies(*shape) - cutoff, 0)
    response: NDArray[np.float64] = np.exp(-0.5 * np.square(beyond / (EDGE * cutoff)))
    return response
