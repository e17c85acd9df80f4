"""The filter of filtered backprojection: the band-limited ramp, sampled in space, with an optional Hann window."""

from __future__ import annotations

import math
from typing import Literal

from cdm4mi.degradation.lazy_torch import Tensor, torch

Filter = Literal["ram-lak", "hann"]
UPSAMPLING = 2


def response(length: int, pitch: float, name: Filter) -> Tensor:
    """(length // 2 + 1,) response, 1/mm, float64, for rows zero-padded to ``length`` channels of ``pitch`` mm.

    The transform of the ramp's samples (Kak and Slaney, 1988, eq. 3.61), not samples of |f|: those lose the mean and
    put an offset on the image. The Hann window falls to zero at the detector's Nyquist frequency.
    """
    n = torch.arange(length, dtype=torch.float64)
    n = torch.minimum(n, length - n)
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * pitch * n.clamp(min=1)) ** 2, torch.zeros_like(n))
    kernel[0] = 1 / (4 * pitch**2)
    ramp: Tensor = torch.fft.rfft(kernel).real * pitch
    if name == "hann":
        ramp *= 0.5 * (1 + torch.cos(2 * math.pi * torch.fft.rfftfreq(length, dtype=torch.float64)))
    return ramp


def padded_length(channels: int) -> int:
    """A power of two at which filtering by the product of transforms does not wrap around."""
    return int(2 ** math.ceil(math.log2(2 * channels)))


def filter_rows(sinogram: Tensor, pitch: float, name: Filter) -> Tensor:
    """(N, V, D) line integrals to (N, V, UPSAMPLING D) filtered ones, 1/mm, at steps of pitch / UPSAMPLING.

    The finer steps come from the same transform and let the interpolation that follows take nothing off the high
    frequencies.
    """
    channels = sinogram.shape[-1]
    length = padded_length(channels)
    spectrum = torch.fft.rfft(sinogram, length) * response(length, pitch, name).to(sinogram)
    fine: Tensor = torch.fft.irfft(spectrum, UPSAMPLING * length)[..., : UPSAMPLING * channels]
    return fine * UPSAMPLING
