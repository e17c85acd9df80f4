"""How strong the noise of a scan is, how far it is correlated, and whether it varies, measured from the scan alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError
from cdm4mi.measure.magnitude import Air, air_noise, variance_of_magnitude
from cdm4mi.measure.noise_blocks import LEAST, SIDES, Array, Blocks, Mask, cut
from cdm4mi.measure.noise_spectrum import Spectrum, noise_spectrum

SLICES = 16
"""Slices of a stack that are looked at, evenly spread."""
QUIET = 0.5
"""A slice with less than this share of the others' noise is not one of them: empty, or filled in."""
AGREE = 0.75, 1.3
"""Noise of the tissue over that of the air, between which the air's is taken: no anatomy is in it."""
REGIONS = 5
"""Along rows and columns each, for the map."""
FLAT = 0.1
"""Share of a region's blocks that are taken for free of anatomy."""
LEAST_BLOCKS = 50
"""A region, or a slice, with fewer says nothing."""
VARYING = 0.1
"""Standard deviation of the map's logarithm from which it is believed: anatomy alone makes less."""


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of a scan.

    sigma: its standard deviation in the scan's units, over the patient (root mean square where it varies); for a
    magnitude image that of the real and the imaginary part, which is that of bright tissue. correlations: of pixels
    that are neighbours, (next row, next column), -1 to 1. magnitude: whether the air around the patient is that of an MR
    magnitude image. map: (rows, columns), the standard deviation where it varies over the slice, else None.
    """

    sigma: float
    correlations: tuple[float, float]
    magnitude: bool = False
    map: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def varying(self) -> bool:
        return self.map is not None


NONE = NoiseEstimate(0.0, (0.0, 0.0))


def estimate_noise(images: NDArray[Any], padding: NDArray[np.bool_] | None = None) -> NoiseEstimate:
    """Noise of one image (rows, columns) or of a scan's slices (N, rows, columns), which are taken together.

    Noise is what is alike in the flattest of small blocks of the patient; anatomy is not alike. From their periodograms
    come its spectrum, also where only anatomy can be seen (``noise_spectrum``), and so level and correlations. Where the
    air is that of a magnitude image and agrees, its level is taken (``air_noise``); dark tissue then counts with the
    lesser noise that it has (Koay and Basser 2006). A level that varies is measured in regions.

    padding: pixels that are not part of the scan; areas of one value count as such, and so do values cut by a window.
    Zero for images of one value, and for those under 4 x 4 pixels. Raises UserError for pixels that are not finite.
    """
    stack = np.asarray(images, np.float64)
    stack = stack[None] if stack.ndim == 2 else stack
    if not np.isfinite(stack).all():
        raise UserError("image has pixels that are not finite, expected none")
    chosen = np.unique(np.linspace(0, len(stack) - 1, SLICES).astype(int))
    stack = stack[chosen]
    excluded = None if padding is None else padding.reshape(-1, *stack.shape[1:])[chosen]
    for side in SIDES:
        blocks = cut(stack, side, excluded)
        if len(blocks) >= LEAST:
            break
    if not len(blocks):
        return NONE
    bright = _patient(blocks)
    air = air_noise(blocks[~bright])
    return _Measurement(blocks[bright].spread_out(), air).estimate()


def _patient(blocks: Blocks) -> Mask:
    """Which blocks show the patient: above half the mean, as everywhere, but for any zero of the scale."""
    low = float(np.percentile(blocks.mean, 1))
    bright: Mask = blocks.mean >= low + 0.5 * (float(blocks.mean.mean()) - low)
    return bright


class _Measurement:
    """Blocks of tissue, and the noise found in them."""

    def __init__(self, blocks: Blocks, air: Air | None) -> None:
        self.blocks, self.air = blocks, air
        self.periodograms = blocks.periodograms()
        self.rows, self.columns = blocks.images.shape[1:]
        self.relative = np.ones(len(blocks))

    def estimate(self) -> NoiseEstimate:
        spectrum = self._spectrum(self.air.sigma if self.air else None)
        if self.air is not None:
            spectrum = self._spectrum(self._agreed(spectrum))
        sigma = self._agreed(spectrum)
        if sigma <= 1e-9 * np.abs(self.blocks.images).max():
            return NONE
        factors = self._map(spectrum)
        if factors is not None:
            self.relative = self._at_blocks(factors)
            spectrum = self._spectrum(sigma)
            rms = float(np.sqrt(np.square(self.relative).mean()))
            base = np.sqrt(spectrum.variance)
            sigma = float(base * rms)
        grid = None if factors is None else self._interpolated(factors) * np.float32(base)
        return NoiseEstimate(sigma, spectrum.correlations, self.air is not None, grid)

    def _agreed(self, spectrum: Spectrum) -> float:
        sigma = float(np.sqrt(spectrum.variance))
        if self.air is not None and AGREE[0] < sigma / self.air.sigma < AGREE[1]:
            return self.air.sigma
        return sigma

    def _spectrum(self, sigma: float | None) -> Spectrum:
        """Of the noise in tissue, where it is as strong as ``relative`` says; sigma: of a magnitude image."""
        self.scale = np.square(self.relative)
        if self.air is not None and sigma is not None:
            self.scale = self.scale * variance_of_magnitude(self.blocks.square, sigma * self.relative, self.air.coils)
        self.periodograms_scaled = self.periodograms / self.scale[:, None, None]
        return noise_spectrum(self.periodograms_scaled[self._usual], self.blocks.side)

    @property
    def _usual(self) -> Mask:
        """Blocks of slices that are not much quieter than the others."""
        total = self.periodograms.mean((1, 2))
        low = {
            k: np.quantile(total[here], FLAT)
            for k in np.unique(self.blocks.slices)
            if (here := self.blocks.slices == k).sum() >= LEAST_BLOCKS
        }
        quiet = [k for k, value in low.items() if value < QUIET**2 * np.median(list(low.values()))]
        usual: Mask = ~np.isin(self.blocks.slices, quiet)
        return usual

    def _map(self, spectrum: Spectrum) -> Array | None:
        """(REGIONS, REGIONS) standard deviation over that of the spectrum, where it varies."""
        energy, alone = spectrum.energies(self.periodograms_scaled), spectrum.noise_energies()
        expected = float(np.quantile(alone, FLAT))
        y, x = self._positions()
        factors, counts = np.full((REGIONS, REGIONS), np.nan), np.zeros((REGIONS, REGIONS))
        for i in range(REGIONS):
            for j in range(REGIONS):
                here = (np.abs(y - i) < 1) & (np.abs(x - j) < 1) & self._usual
                if here.sum() >= LEAST_BLOCKS:
                    factors[i, j] = np.sqrt(np.quantile(energy[here], FLAT) / expected)
                    counts[i, j] = here.sum()
        known = counts > 0
        if known.sum() < 4:
            return None
        logarithm, weights = np.log(factors[known]), counts[known]
        spread = np.sqrt(np.average(np.square(logarithm - np.average(logarithm, weights=weights)), weights=weights))
        if spread < VARYING:
            return None
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        filled: Array = factors[tuple(nearest)]
        return filled

    def _positions(self) -> tuple[Array, Array]:
        """Of the blocks' middles, in regions."""
        half = self.blocks.side / 2
        y = (self.blocks.rows + half) / self.rows * REGIONS - 0.5
        x = (self.blocks.columns + half) / self.columns * REGIONS - 0.5
        return y, x

    def _at_blocks(self, factors: Array) -> Array:
        found: Array = ndimage.map_coordinates(factors, self._positions(), order=1, mode="nearest")
        return found

    def _interpolated(self, factors: Array) -> NDArray[np.float32]:
        y, x = ((np.arange(n) + 0.5) / n * REGIONS - 0.5 for n in (self.rows, self.columns))
        grid = np.meshgrid(y, x, indexing="ij")
        found: NDArray[np.float32] = ndimage.map_coordinates(factors, grid, order=1, mode="nearest").astype(np.float32)
        return found
