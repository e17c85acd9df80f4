"""Channels of the channelised Hotelling observer: dense difference-of-Gaussian channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHANNELS, FIRST, STEP, WIDE = 10, 0.005, 1.4, 1.67
"""How many; the width of the first in cycles a pixel; the ratio of one's width to the last; of outer to inner width."""


def dog_channels(side: int) -> NDArray[np.float64]:
    """Dense difference-of-Gaussian channels as images (10, side, side), centred at [side // 2, side // 2].

    Channel j passes exp(-(f / (Q s_j))^2 / 2) - exp(-(f / s_j)^2 / 2) of a spatial frequency f in cycles a pixel, with
    s_j = 0.005 x 1.4^j and Q = 1.67: bands up to 0.2 cycles a pixel (Abbey and Barrett, JOSA A 18, 2001: D-DOG). Each
    is scaled to unit norm, which no Hotelling observer notices.
    """
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    widths = FIRST * STEP ** np.arange(CHANNELS)[:, None, None]
    bands = np.exp(-0.5 * (f / (WIDE * widths)) ** 2) - np.exp(-0.5 * (f / widths) ** 2)
    images = np.fft.fftshift(np.fft.ifft2(bands).real, axes=(1, 2))
    scaled: NDArray[np.float64] = images / np.linalg.norm(images, axis=(1, 2), keepdims=True)
    return scaled


def channel_outputs(regions: NDArray[np.floating], channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner products (..., channels) of regions (..., side, side) with channels (channels, side, side)."""
    outputs: NDArray[np.float64] = np.einsum("...yx,cyx->...c", regions, channels)
    return outputs
