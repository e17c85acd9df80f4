"""How much of a lesion's contrast an image keeps, and how far that stands out of what is around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AROUND = 8
"""Pixels around a lesion that the local standard deviation is of too."""


def contrast_kept(with_: NDArray[Any], without: NDArray[Any], added: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Mean difference of two images inside the lesion over the mean there of what was added to the second: 1 for all.

    with_, without: (rows, columns), the same image and noise with and without the lesion, as a method returns them.
    """
    return float((with_ - without)[inside].mean() / added[inside].mean())


def visibility(kept: float, contrast: float, deviations: NDArray[np.floating]) -> float:
    """Contrast that was kept over the spread of the lesion-free image around it (root mean square of ``deviations``).

    A spread that is mostly of the anatomy, or smoothed away, says nothing of what was lost: see ``observer`` for that.
    """
    return float(abs(contrast) * kept / max(np.sqrt(np.mean(np.square(deviations))), 1e-12))
