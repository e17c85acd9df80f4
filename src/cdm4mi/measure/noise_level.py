"""Noise of an image, measured from the image alone: standard deviation and correlation."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError

# Daubechies' wavelet with two vanishing moments ("Ten Lectures on Wavelets", table 6.1)
_DB2_HIGH = np.array([1 - 3**0.5, -(3 - 3**0.5), 3 + 3**0.5, -(1 + 3**0.5)]) / (4 * 2**0.5)
_DB2_LOW = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5)
_NORMAL_MAD = 0.6744897501960817  # third quartile of the standard normal

FLATTEST = 0.25
"""Share of the foreground that is measured: where a smoothed image changes least, there is least anatomy."""
LEAST_PIXELS = 1024
"""Least number of pixels: a larger share of a small image is measured."""
WHITE, CORRELATED = 1.2, 1.5
"""Ratios of the second scale to the first: up to WHITE anatomy can cause them, from CORRELATED on they count fully."""
SMOOTHEST = 2.0
"""Widest smoothing that is distinguished, pixels."""


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of an image.

    sigma: standard deviation in the image's units; correlation: width of the autocorrelation in pixels, the sum of its
    coefficients along an axis, 1 for white noise.
    """

    sigma: float
    correlation: float


def estimate_sigma(y: NDArray[Any]) -> float:
    """Standard deviation of the noise in one image (rows, columns), in its units; see ``estimate_noise``."""
    return estimate_noise(y).sigma


def estimate_noise(y: NDArray[Any]) -> NoiseEstimate:
    """Noise in one image (rows, columns): median |HH| / 0.6745 over all shifts of db2, corrected for correlation.

    The finest wavelet scale gives sigma of white noise (Donoho and Johnstone 1994, section 4.2). Smoothed noise has
    less there and more in the next scale: the ratio of the two gives the smoothing (as by a Gaussian), and from it the
    factor by which the first is too low. Measured is the flattest part of the foreground, without padding (areas of
    one value) and air. Fine texture counts as noise. Zero for a constant image. Raises UserError for pixels that are
    not finite.
    """
    y = np.asarray(y, dtype=np.float64)
    if not np.isfinite(y).all():
        raise UserError("image has pixels that are not finite, expected none")
    flattest = _flat_foreground(y)
    if not flattest.any():
        return NoiseEstimate(0.0, 1.0)
    first, second = (float(np.median(np.abs(band[flattest]))) / _NORMAL_MAD for band in _diagonal_bands(y))
    if first <= 1e-12 * max(float(np.abs(y).max()), 1e-30):
        return NoiseEstimate(0.0, 1.0)
    smoothing, responses = _smoothed_noise()
    ratio = second / first
    weight = float(np.clip((ratio - WHITE) / (CORRELATED - WHITE), 0, 1))
    width = float(np.interp(ratio, responses[:, 1] / responses[:, 0], smoothing)) * weight
    sigma = first / float(np.interp(width, smoothing, responses[:, 0]))
    return NoiseEstimate(sigma, _correlation(width))


def _flat_foreground(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask, bool, of the pixels in which the noise is measured."""
    constant = ndimage.maximum_filter(y, 3) == ndimage.minimum_filter(y, 3)
    # by as much as the filters reach into it
    padding = ndimage.binary_dilation(ndimage.binary_opening(constant, np.ones((3, 3))), np.ones((9, 9)))
    inside: NDArray[np.bool_] = ~padding
    if not inside.any():
        return inside
    values = y[inside]
    low = float(np.percentile(values, 1))
    # air: below half the mean, as everywhere, but for any zero of the scale
    inside &= ndimage.uniform_filter(y, 5) > low + 0.5 * (float(values.mean()) - low)
    slope = ndimage.gaussian_gradient_magnitude(y, 2.0)
    count = int(inside.sum())
    if count == 0:
        return inside
    share = min(1.0, max(FLATTEST, LEAST_PIXELS / count))
    flattest: NDArray[np.bool_] = inside & (slope <= np.quantile(slope[inside], share))
    return flattest


def _diagonal_bands(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """HH bands of the two finest scales, undecimated; those of white noise have its standard deviation."""
    bands, smooth = [], y
    for step in (1, 2):
        high, low = _dilated(_DB2_HIGH, step), _dilated(_DB2_LOW, step)
        band = smooth
        for axis in (0, 1):
            band = ndimage.convolve1d(band, high, axis=axis, mode="reflect")
        bands.append(band)
        for axis in (0, 1):
            smooth = ndimage.convolve1d(smooth, low, axis=axis, mode="reflect")
    return bands[0], bands[1]


@functools.cache
def _smoothed_noise() -> tuple[NDArray[Any], NDArray[Any]]:
    """Widths of a smoothing Gaussian (standard deviation, pixels), and the standard deviations of both bands for each.

    Those are of white noise that the Gaussian smoothed, in units of the smoothed noise's standard deviation.
    """
    smoothing = np.linspace(0, SMOOTHEST, 81)
    w = 2 * np.pi * np.fft.fftfreq(256)
    high, low, wide = _gain(_DB2_HIGH, w), _gain(_DB2_LOW, w), _gain(_DB2_HIGH, 2 * w)
    responses = []
    for s in smoothing:
        power = np.exp(-((s * w) ** 2))
        # separable: the square over one axis is the standard deviation over both
        responses.append([float((gain * power).mean() / power.mean()) for gain in (high, low * wide)])
    return smoothing, np.array(responses)


def _gain(taps: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
    gain: NDArray[np.float64] = np.abs(np.exp(-1j * w[:, None] * np.arange(len(taps))) @ taps) ** 2
    return gain


def _dilated(taps: NDArray[Any], step: int) -> NDArray[Any]:
    """A filter with ``step - 1`` zeros between its taps."""
    out = np.zeros((len(taps) - 1) * step + 1)
    out[::step] = taps
    return out


def _correlation(smoothing: float) -> float:
    """Sum of the autocorrelation exp(-k^2 / 4 s^2) of white noise that a Gaussian of s pixels smoothed."""
    if smoothing == 0:
        return 1.0
    return float(1 + 2 * np.exp(-(np.arange(1, 20) ** 2) / (4 * smoothing**2)).sum())
