"""Structural similarity as other works compute it, for comparison with their results alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from cdm4mi.errors import UserError


def ssim_zero_padded(x: NDArray[Any], ref: NDArray[Any], data_range: float) -> float:
    """SSIM with a Gaussian 11 x 11 window (sigma 1.5) over an image padded with zeros, the border included.

    Many PyTorch projects, CoreDiff among them, compute SSIM by such a convolution. x, ref: (rows, columns).
    """
    if x.ndim != 2 or x.shape != ref.shape:
        raise UserError(f"SSIM (padded) of shapes {x.shape} and {ref.shape}, expected two equal (rows, columns)")
    x, ref = np.asarray(x, np.float64), np.asarray(ref, np.float64)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(a: NDArray[Any]) -> NDArray[np.floating]:
        rows = ndimage.correlate1d(a, taps, 0, mode="constant")
        smoothed: NDArray[np.floating] = ndimage.correlate1d(rows, taps, 1, mode="constant")
        return smoothed

    mu_x, mu_r = mean(x), mean(ref)
    var_x, var_r, cov = mean(x * x) - mu_x**2, mean(ref * ref) - mu_r**2, mean(x * ref) - mu_x * mu_r
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mu_x * mu_r + c1) * (2 * cov + c2) / ((mu_x**2 + mu_r**2 + c1) * (var_x + var_r + c2))
    return float(similarity.mean())


def ssim_across_slices(x: NDArray[Any], ref: NDArray[Any], data_range: float) -> float:
    """SSIM with a 7 x 7 x 7 uniform window over a stack (slices, rows, columns), as in the original work."""
    if x.ndim != 3 or x.shape != ref.shape or min(x.shape) < 7:
        raise UserError(
            f"SSIM (7 x 7 x 7): found a stack of shape {x.shape}, expected at least 7 slices and 7 x 7 pixels"
        )
    return float(structural_similarity(np.asarray(ref, np.float64), np.asarray(x, np.float64), data_range=data_range))
