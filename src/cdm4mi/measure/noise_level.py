"""How strong the noise of an image is, measured from the image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cdm4mi.errors import UserError

# Daubechies' wavelet with two vanishing moments ("Ten Lectures on Wavelets", table 6.1), high-pass side
_DB2_HIGH = np.array([1 - 3**0.5, -(3 - 3**0.5), 3 + 3**0.5, -(1 + 3**0.5)]) / (4 * 2**0.5)
_NORMAL_MAD = 0.6744897501960817  # third quartile of the standard normal


def estimate_sigma(y: np.ndarray) -> float:
    """Standard deviation of white noise in one image: median |HH| / 0.6745 of the finest wavelet scale.

    Donoho and Johnstone (1994, section 4.2) with db2, as scikit-image's ``estimate_sigma``, but over all shifts of the
    wavelet, which steadies it, and without PyWavelets. Where the coefficient is exactly zero (masked or padded areas)
    nothing is counted. y: (rows, columns); in its units; 0 for a constant image. Fine texture counts as noise, and
    correlated noise reads too low. Raises UserError for pixels that are not finite.
    """
    if not np.isfinite(y).all():
        raise UserError("image has pixels that are not finite, expected none")
    details = np.asarray(y, dtype=np.float64)
    for axis in (0, 1):
        details = ndimage.convolve1d(details, _DB2_HIGH, axis=axis, mode="reflect")
    details = np.abs(details)
    details = details[details > 1e-12 * max(float(np.abs(y).max()), 1e-30)]
    return float(np.median(details) / _NORMAL_MAD) if details.size else 0.0
