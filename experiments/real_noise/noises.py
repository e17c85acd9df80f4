"""The noises that models are judged on: some of the project's, some written anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.data.add_noise import noisy_scan
from experiments.real_noise.scans import Scan


class Noisy(NamedTuple):
    """Noisy slices and what a perfect method would return, (N, H, W), and the standard deviation; physical units."""

    y: np.ndarray
    reference: np.ndarray
    sigma: float


def simulated(scan: Scan, seed: int, *, type: str, **keys: Any) -> Noisy:
    """A noise of the project. sigma: for low-dose CT that of what was added in the judged square."""
    noisy = noisy_scan(scan.volume, noise_from_spec(type, keys), seed)
    clean, y = scan.volume.array, noisy.volume.array
    if type != "low_dose_ct":
        return Noisy(y, clean, noisy.sigma_scanner)
    rows, columns = scan.square()
    return Noisy(y, clean, float(np.std((y - clean)[:, rows, columns])))


def magnitude(
    scan: Scan, seed: int, *, percent: float, zero_filled: float = 1.0, smoothing: float = 0.0, varying: bool = False
) -> Noisy:
    """|A + s (n_1 + i n_2)|, s in percent of the window's upper end.

    zero_filled: pixels of the image over samples of k-space along both axes; the image that was measured without noise
    is the reference then. smoothing: of the noise, Gaussian, pixels. varying: s as ``coil_map``, with the stated root
    mean square in the judged square.
    """
    clean = scan.volume.array
    noise = np.random.default_rng([seed, 11]).standard_normal((2, *clean.shape))
    if smoothing:
        noise = gaussian_filter(noise, (0, 0, smoothing, smoothing), mode="wrap")
    if zero_filled > 1:
        inside = [np.abs(np.fft.fftfreq(n)) <= 0.5 / zero_filled for n in clean.shape[1:]]
        box = inside[0][:, None] & inside[1]
        noise = np.fft.ifft2(np.fft.fft2(noise) * box).real
        clean = np.abs(np.fft.ifft2(np.fft.fft2(clean) * box))
    sigma = percent / 100 * scan.window.high
    s: float | np.ndarray = sigma
    if varying:
        g = coil_map(clean.shape[1:])
        s = sigma * g / np.sqrt(np.mean(g[scan.square()] ** 2))
    real, imaginary = s * noise / noise.std()
    return Noisy(np.hypot(clean + real, imaginary), clean, sigma)


def coil_map(shape: tuple[int, ...]) -> np.ndarray:
    """How parallel imaging raises the noise in the middle: from 0.5 at the edges to 2."""
    rows, columns = (np.linspace(-1, 1, n) for n in shape)
    return np.asarray(0.5 + 1.5 * np.exp(-(rows[:, None] ** 2 + columns**2) / 0.7**2))


def ramp(scan: Scan, seed: int, *, sigma_hu: float) -> Noisy:
    """Noise of filtered backprojection, Hann window up to the Nyquist frequency f_N: power |f| cos^4(pi f / 2 f_N)."""
    clean = scan.volume.array
    fy, fx = (np.fft.fftfreq(n) for n in clean.shape[1:])
    f = np.hypot(fy[:, None], fx)
    amplitude = np.sqrt(f) * np.cos(np.pi * f.clip(max=0.5)) ** 2
    white = np.random.default_rng([seed, 13]).standard_normal(clean.shape)
    noise = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
    return Noisy(clean + sigma_hu * noise / noise.std(), clean, sigma_hu)


MAKERS: dict[str, Callable[..., Noisy]] = {"simulated": simulated, "magnitude": magnitude, "ramp": ramp}
