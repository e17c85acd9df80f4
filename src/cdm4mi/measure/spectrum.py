"""Power by spatial frequency: noise power spectrum, radial mean, and the distance of two images' spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError

FLOOR = 1e-8
"""Power below this share of the reference's mean power (80 dB less, under 12-bit rounding) is taken as this much."""


def noise_power_spectrum(
    regions: NDArray[Any], spacing: tuple[float, float] = (1.0, 1.0), detrend: bool = True, taper: bool = False
) -> NDArray[np.floating]:
    """2-D noise power spectrum: mean over regions of |DFT|^2 (squared first, then averaged), times dx dy / (Nx Ny).

    ICRU Report 87 (2012), section 5.4. White noise of variance s^2 gives s^2 dx dy at every frequency, and the sum over
    frequencies times their area 1 / (Nx dx Ny dy) is the variance.

    Args:
        regions: (..., rows, columns), the independent regions of noise, in any unit: value.
        spacing: (dy, dx) in millimetres; with 1, 1 frequencies are in cycles a pixel.
        detrend: subtract a fitted plane from each region (3 of rows x columns degrees of freedom); else the mean.
        taper: a Hann window first, for images whose opposite borders differ, at the same mean power.

    Returns:
        (rows, columns) in value^2 mm^2, the zero frequency at [0, 0] (as ``numpy.fft.fft2`` has it).
    """
    regions = _checked(regions, "regions")
    rows, columns = regions.shape[-2:]
    noise = _without_plane(regions) if detrend else regions - regions.mean(axis=(-2, -1), keepdims=True)
    if taper:
        window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (rows, columns)))
        noise = noise * (window / np.sqrt(np.mean(window**2)))
    power = np.abs(np.fft.fft2(noise)) ** 2
    spectrum: NDArray[np.floating] = power.mean(axis=0) * (spacing[0] * spacing[1] / (rows * columns))
    return spectrum


def radial_mean(spectrum: NDArray[Any], spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean of a 2-D spectrum over rings one frequency step wide, without the zero frequency, up to Nyquist's.

    Returns:
        The mean frequency of each ring, in cycles per millimetre (cycles a pixel for spacing 1, 1), and its power.
    """
    spectrum = np.asarray(spectrum, dtype=np.float64)
    if spectrum.ndim != 2 or min(spectrum.shape) < 4:
        raise UserError(f"spectrum has shape {spectrum.shape}, expected (rows, columns), at least 4 x 4")
    along = [np.fft.fftfreq(n, d) for n, d in zip(spectrum.shape, spacing, strict=True)]
    frequency = np.hypot(along[0][:, None], along[1][None, :])
    step = max(1 / (n * d) for n, d in zip(spectrum.shape, spacing, strict=True))
    nyquist = min(0.5 / d for d in spacing)
    ring = np.rint(frequency / step).astype(int)
    ring[frequency > nyquist * (1 + 1e-9)] = 0
    count = np.bincount(ring.ravel())
    held = np.flatnonzero(count[1:]) + 1
    means = [np.bincount(ring.ravel(), values.ravel())[held] / count[held] for values in (frequency, spectrum)]
    return means[0], means[1]


def regions_inside(image: NDArray[Any], mask: NDArray[Any] | None, size: int) -> NDArray[Any]:
    """Square regions (N, size, size) of an image (rows, columns), half overlapping, that lie wholly inside the mask."""
    image = np.asarray(image)
    if image.ndim != 2:
        raise UserError(f"image has shape {image.shape}, expected (rows, columns)")
    found = [
        image[i : i + size, j : j + size]
        for i in range(0, image.shape[0] - size + 1, max(size // 2, 1))
        for j in range(0, image.shape[1] - size + 1, max(size // 2, 1))
        if mask is None or mask[i : i + size, j : j + size].all()
    ]
    return np.stack(found) if found else np.empty((0, size, size), image.dtype)


def spectrum_error(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Distance of two images' radial power spectra in dB: mean over frequencies of |10 log10(P_image / P_reference)|.

    0 for equal texture, even where pixels differ (a posterior sample comes close), some dB for a blurred image (it has
    lost its high frequencies), 10 log10(1 + n / P) at a frequency with power P to which noise of power n was added.
    Every frequency ring has the same weight, so the power of the anatomy does not hide fine texture.

    Args:
        image: (rows, columns) or (..., rows, columns), of which the power is averaged over all regions or slices,
            after removal of a plane and a Hann window.
        reference: of the same shape, in the same units; treated alike.
    """
    image, reference = _checked(image, "image"), _checked(reference, "reference")
    if image.shape != reference.shape:
        raise UserError(f"image has shape {image.shape}, expected the reference's {reference.shape}")
    _, power = radial_mean(noise_power_spectrum(image, taper=True))
    _, expected = radial_mean(noise_power_spectrum(reference, taper=True))
    floor = FLOOR * float(np.mean((reference - reference.mean(axis=(-2, -1), keepdims=True)) ** 2))
    if floor == 0:
        raise UserError("reference is constant, expected an image")
    return float(np.mean(np.abs(10 * np.log10(np.maximum(power, floor) / np.maximum(expected, floor)))))


def _without_plane(regions: NDArray[Any]) -> NDArray[np.floating]:
    rows, columns = regions.shape[-2:]
    y, x = (np.arange(n) - (n - 1) / 2 for n in (rows, columns))
    # the three basis functions are orthogonal on a full grid, so each is taken out on its own
    rest = regions - regions.mean(axis=(-2, -1), keepdims=True)
    slope_y = (rest.mean(axis=-1) @ y) / (y @ y)
    slope_x = (rest.mean(axis=-2) @ x) / (x @ x)
    flat: NDArray[np.floating] = rest - slope_y[..., None, None] * y[:, None] - slope_x[..., None, None] * x
    return flat


def _checked(x: NDArray[Any], name: str) -> NDArray[Any]:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2 or min(x.shape[-2:]) < 4 or not x.size:
        raise UserError(f"{name} of shape {x.shape}, expected (..., rows, columns), at least 4 x 4")
    if not np.isfinite(x).all():
        raise UserError(f"{name}: found pixels that are not finite, expected none")
    return x.reshape(-1, *x.shape[-2:])
