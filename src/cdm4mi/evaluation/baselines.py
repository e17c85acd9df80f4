"""Classical denoisers to be measured against: one image and its noise's sigma in, one image out, any units.

A baseline is as strong as its settings: tune them on validation pairs (``tune_nlm``), never on the test set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import restoration

from cdm4mi.errors import UserError


@dataclass(frozen=True)
class NlmSettings:
    """Non-local means: strength h = factor * sigma, and the patches' size and farthest distance in pixels.

    The defaults lie within 0.3 dB of the tuned ones on brain MR and chest CT at noise variances 0.01 to 0.2 on [-1, 1].
    """

    factor: float = 0.7
    patch_size: int = 5
    patch_distance: int = 6


def nlm(y: np.ndarray, sigma: float, settings: NlmSettings = NlmSettings()) -> np.ndarray:
    """Non-local means (Buades et al. 2005; scikit-image's fast mode, Darbon et al. 2008), sigma known.

    ``y`` is (rows, columns); the result is float32 of the same shape and units. Sigma 0 returns the image.
    """
    y = _image(y, sigma)
    if sigma == 0:
        return y
    # scikit-image computes in the image's precision; in units of sigma float32 holds every scanner's numbers
    scaled = (y - y.mean()) / sigma
    out = restoration.denoise_nl_means(
        scaled,
        patch_size=settings.patch_size,
        patch_distance=settings.patch_distance,
        h=settings.factor,
        sigma=1.0,
        fast_mode=True,
    )
    return (out * sigma + y.mean()).astype(np.float32)


def tune_nlm(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, float]],
    factors: Sequence[float] = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
    patch_sizes: Sequence[int] = (3, 5, 7),
    patch_distances: Sequence[int] = (6, 10),
) -> NlmSettings:
    """The settings with the highest mean PSNR on validation pairs (noisy, reference, sigma), of the whole grid.

    The mean of log(MSE) is minimised, which is the mean PSNR whatever the data range.
    """
    if not pairs:
        raise UserError("no validation pair to tune non-local means on, expected at least one")

    def loss(settings: NlmSettings) -> float:
        errors = [np.mean((nlm(y, sigma, settings) - reference) ** 2) for y, reference, sigma in pairs]
        return float(np.mean(np.log(np.maximum(errors, 1e-30))))

    grid = [NlmSettings(*point) for point in itertools.product(factors, patch_sizes, patch_distances)]
    return min(grid, key=loss)


def gaussian_filter(y: np.ndarray, sigma: float, width: float = 1.0) -> np.ndarray:
    """Gaussian blur of ``width`` pixels; ``sigma`` (of the noise) only says whether there is anything to do."""
    y = _image(y, sigma)
    return y if sigma == 0 else ndimage.gaussian_filter(y, width, mode="nearest")


def tv(y: np.ndarray, sigma: float, factor: float = 1.0) -> np.ndarray:
    """Total variation (Rudin et al. 1992 by Chambolle 2004) with weight factor * sigma."""
    y = _image(y, sigma)
    if sigma == 0:
        return y
    scaled = (y - y.mean()) / sigma
    out = restoration.denoise_tv_chambolle(scaled, weight=factor)
    return (out * sigma + y.mean()).astype(np.float32)


def wavelet(y: np.ndarray, sigma: float, name: str = "db2") -> np.ndarray:
    """BayesShrink soft thresholding of wavelet coefficients (Chang et al. 2000), averaged over 4 x 4 shifts.

    Needs PyWavelets, which is not installed with this project."""
    y = _image(y, sigma)
    if sigma == 0:
        return y
    try:
        import pywt  # noqa: F401
    except ImportError:
        raise UserError(
            "the wavelet baseline needs PyWavelets, found none; install it: pip install PyWavelets"
        ) from None
    low, high = float(y.min()), float(y.max())
    if low == high:
        return y
    scaled = (y - low) / (high - low)  # the threshold is applied, and clipped, on [0, 1]
    out = np.zeros_like(scaled)
    for shift in itertools.product(range(4), repeat=2):
        shifted = np.roll(scaled, shift, (0, 1))
        clean = restoration.denoise_wavelet(shifted, sigma / (high - low), wavelet=name, rescale_sigma=False)
        out += np.roll(clean, (-shift[0], -shift[1]), (0, 1)) / 16
    return (out * (high - low) + low).astype(np.float32)


def bm3d(y: np.ndarray, sigma: float) -> np.ndarray:
    """BM3D (Dabov et al. 2007) by the package of its authors, which is not installed with this project.

    Its licence forbids commercial use: read it before installing.
    """
    y = _image(y, sigma)
    if sigma == 0:
        return y
    try:
        import bm3d as package
    except ImportError:
        raise UserError(
            "the BM3D baseline needs the package bm3d, found none; install it: pip install bm3d "
            "(its licence forbids commercial use)"
        ) from None
    low, width = float(y.min()), max(float(np.ptp(y)), sigma)
    out = package.bm3d((y - low) / width, sigma_psd=sigma / width)
    return (np.asarray(out) * width + low).astype(np.float32)


def _image(y: np.ndarray, sigma: float) -> np.ndarray:
    y = np.asarray(y, dtype=np.float32)
    if y.ndim != 2:
        raise UserError(f"image has shape {y.shape}, expected (rows, columns)")
    if not np.isfinite(y).all():
        raise UserError("image has pixels that are not finite, expected none")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise UserError(f"sigma is {sigma}, expected a finite number of at least 0")
    return y
