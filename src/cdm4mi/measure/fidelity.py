"""Visual information fidelity: the share of the reference's information that an eye can still see in the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError

VISUAL_NOISE = 2.0
"""Variance of the noise of the visual system, on 8-bit grey levels (Sheikh and Bovik 2006)."""
LEAST_SIDE = 41
_TINY = 1e-10


def vif(x: NDArray[Any], ref: NDArray[Any], levels_range: float, mask: NDArray[Any] | None = None) -> float:
    """Visual information fidelity in the pixel domain, four scales (Sheikh and Bovik, IEEE TIP 15(2), 2006).

    At each scale x is modelled as g ref + v with local gain g and noise v, and

        VIF = sum log(1 + g^2 s_r^2 / (s_v^2 + s_n^2)) / sum log(1 + s_r^2 / s_n^2),    s_n^2 = 2

    1 for equal images, towards 0 without information, above 1 for raised contrast. It depends on the units.

    Args:
        x: one image (rows, columns), at least 41 x 41, in grey levels: the window mapped to 0..levels_range.
        ref: the reference, of the same shape and scale.
        levels_range: the largest grey level, 255 as published; values outside 0..levels_range are refused.
        mask: limits both sums to its pixels.

    Returns:
        The ratio; nan where the reference holds no structure (constant).
    """
    x, ref = np.asarray(x, np.float64), np.asarray(ref, np.float64)
    if x.ndim != 2 or x.shape != ref.shape or min(x.shape) < LEAST_SIDE:
        raise UserError(f"VIF of shapes {x.shape} and {ref.shape}, expected two equal images, at least 41 x 41")
    if min(x.min(), ref.min()) < -1e-6 * levels_range or max(x.max(), ref.max()) > levels_range * (1 + 1e-6):
        raise UserError(f"VIF: found values outside 0 to {levels_range:g}, expected grey levels")
    inside = np.ones(x.shape, bool) if mask is None else mask
    seen = available = 0.0
    for size in (17, 9, 5, 3):
        if size < 17:
            x, ref = (_valid(a, size)[::2, ::2] for a in (x, ref))
            inside = _cropped(inside, size)[::2, ::2]
        mean_x, mean_r = _valid(x, size), _valid(ref, size)
        var_x = np.maximum(_valid(x * x, size) - mean_x**2, 0)
        var_r = np.maximum(_valid(ref * ref, size) - mean_r**2, 0)
        covariance = _valid(x * ref, size) - mean_x * mean_r
        gain = covariance / (var_r + _TINY)
        rest = var_x - gain * covariance
        # a negative gain carries nothing: all of x is noise there; a flat reference has nothing to carry
        rest = np.where(gain < 0, var_x, rest)
        gain = np.maximum(gain, 0)
        flat = var_r < _TINY
        gain, rest, var_r = np.where(flat, 0, gain), np.where(flat, var_x, rest), np.where(flat, 0, var_r)
        gain, rest = np.where(var_x < _TINY, 0, gain), np.where(var_x < _TINY, 0, rest)
        counted = _cropped(inside, size)
        seen += np.log1p(gain**2 * var_r / (np.maximum(rest, _TINY) + VISUAL_NOISE))[counted].sum()
        available += np.log1p(var_r / VISUAL_NOISE)[counted].sum()
    return float(seen / available) if available > 0 else float("nan")


def _valid(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Mean in a Gaussian window of sigma size / 5, at the pixels whose window lies wholly inside the image."""
    taps = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * (size / 5) ** 2))
    taps /= taps.sum()
    return _cropped(ndimage.correlate1d(ndimage.correlate1d(image, taps, 0), taps, 1), size)


def _cropped(image: NDArray[Any], size: int) -> NDArray[Any]:
    half = size // 2
    return image[half:-half, half:-half]
