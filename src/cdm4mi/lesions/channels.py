"""Channels of the channelised Hotelling observer: difference-of-Gaussian channels, dense or sparse."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Bands(NamedTuple):
    """How many; the width of the first in cycles a pixel; the ratio of widths that follow; of outer to inner width."""

    number: int
    first: float
    step: float
    wide: float


DENSE, SPARSE = Bands(10, 0.005, 1.4, 1.67), Bands(3, 0.015, 2.0, 2.0)
"""D-DOG and S-DOG of Abbey and Barrett. With few images the sparse ones are estimated better."""


def dog_channels(side: int, bands: Bands = DENSE) -> NDArray[np.float64]:
    """Difference-of-Gaussian channels as images (channels, side, side), centred at [side // 2, side // 2].

    Channel j passes exp(-(f / (Q s_j))^2 / 2) - exp(-(f / s_j)^2 / 2) of a spatial frequency f in cycles a pixel, with
    s_j = first x step^j and Q = wide (Abbey and Barrett, JOSA A 18, 2001). Each is scaled to unit norm, which no
    Hotelling observer notices.
    """
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    widths = bands.first * bands.step ** np.arange(bands.number)[:, None, None]
    passed = np.exp(-0.5 * (f / (bands.wide * widths)) ** 2) - np.exp(-0.5 * (f / widths) ** 2)
    images = np.fft.fftshift(np.fft.ifft2(passed).real, axes=(1, 2))
    scaled: NDArray[np.float64] = images / np.linalg.norm(images, axis=(1, 2), keepdims=True)
    return scaled


def channel_outputs(regions: NDArray[np.floating], channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner products (..., channels) of regions (..., side, side) with channels (channels, side, side)."""
    outputs: NDArray[np.float64] = np.einsum("...yx,cyx->...c", regions, channels)
    return outputs
