"""Values above the intensity window: what a network trained on [-1, 1] would cut off is set aside and put back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

SIDE = 3
"""Pixels: side of the square whose median says how far above the window a place is; it keeps edges."""


def excess(y: NDArray[Any], sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    """How far the tissue at each pixel lies above the window, on [-1, 1]; 0 inside it.

    y: (N, ..., rows, columns) with noise of standard deviation sigma (N,). The median of ``SIDE`` x ``SIDE`` pixels,
    less 1 and less sigma (2.4 standard deviations of that median: Gaussian noise of tissue inside the window hardly
    passes). Less the excess, tissue of any brightness is an image around 1, whose noise a network takes away; the
    excess is added afterwards, with the share of the noise that such a median keeps (0.41).
    """
    above = np.zeros(y.shape, np.float32)
    for place in np.ndindex(y.shape[:-2]):
        level = float(sigma[place[0]])
        if y[place].max() > 1 + level:
            above[place] = np.maximum(median_filter(y[place], SIDE) - 1 - level, 0)
    return above
