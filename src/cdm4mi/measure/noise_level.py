"""How strong the noise of a scan is, how far it is correlated, and whether it varies, measured from the scan alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError
from cdm4mi.measure.magnitude import Air, air_noise, variance_of_magnitude
from cdm4mi.measure.noise_blocks import LEAST, SIDES, Array, Blocks, Mask, cut
from cdm4mi.measure.noise_by_slice import between, slice_sigmas
from cdm4mi.measure.noise_spectrum import FLATTEST, Spectrum, noise_spectrum

SLICES = 16
"""Slices of a stack that are looked at, evenly spread."""
QUIET = 0.5
"""A slice with less than this share of the others' noise is not one of them: empty, or filled in."""
AGREE = 0.6, 1.2
"""Noise of the tissue over that of the air, between which the air's is taken: no anatomy is in it."""
REGIONS = 5
"""Along rows and columns each, for the map."""
FLAT = 0.1
"""Share of a region's blocks that are taken for free of anatomy."""
LEAST_BLOCKS = 50
"""A region, or a slice, with fewer says nothing."""
LEAST_REGIONS = 4
MAPPED = 3
"""Times that the map is measured, each on what the last has left."""
VARYING = 0.08
"""Standard deviation of the map's logarithm from which it is believed: anatomy alone makes less."""


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of a scan.

    sigma: its standard deviation in the scan's units, over the patient (root mean square where it varies); for a
    magnitude image that of the real and the imaginary part, which is that of bright tissue. correlations: of pixels
    that are neighbours, (next row, next column), -1 to 1. magnitude: whether the air around the patient is that of a
    magnitude image (MR). map: (rows, columns), the standard deviation where it varies over the slice, else None.
    by_slice: (N,), the standard deviation of every slice where it varies from slice to slice, else None.
    """

    sigma: float
    correlations: tuple[float, float]
    magnitude: bool = False
    map: NDArray[np.float32] | None = field(default=None, compare=False)
    by_slice: NDArray[np.float64] | None = field(default=None, compare=False)

    @property
    def texture(self) -> tuple[float, float, float]:
        """Both correlations, then 1 for a magnitude, else 0: what a network is told of it beside the level."""
        return (*self.correlations, float(self.magnitude))

    def of_slices(self, count: int) -> NDArray[np.float64]:
        """The standard deviation of each of the scan's slices, (count,)."""
        return np.full(count, self.sigma) if self.by_slice is None else self.by_slice

    @property
    def correlation(self) -> float:
        """Of neighbours along both axes, the mean."""
        return sum(self.correlations) / 2

    @property
    def relative_map(self) -> NDArray[np.float32] | None:
        """(rows, columns), the standard deviation over ``sigma`` where it varies over the slice, else None."""
        return None if self.map is None else self.map / np.float32(self.sigma)

    @property
    def varying(self) -> bool:
        """Whether the standard deviation varies over the slice."""
        return self.map is not None


NONE = NoiseEstimate(0.0, (0.0, 0.0))


def estimate_noise(
    images: NDArray[Any], padding: NDArray[np.bool_] | None = None, may_be_magnitude: bool = True
) -> NoiseEstimate:
    """Noise of one image (rows, columns) or of a scan's slices (N, rows, columns), which are taken together.

    Noise is what is alike in the flattest of small blocks of the patient; anatomy is not alike. Their periodograms give
    its spectrum, continued to frequencies where only anatomy can be seen (``noise_spectrum``), and so the level and the
    correlations. Where the air is that of a magnitude image and agrees, its level is taken (``air_noise``); dark tissue
    then counts with the lesser noise that it has (Koay and Basser 2006). A level that varies is measured in regions
    (by local statistics, as Aja-Fernandez et al., Medical Image Analysis 20, 2015, do in another way), and from slice
    to slice (``slice_sigmas``) but for magnitudes, whose noise is the receiver's.

    padding: pixels that are not part of the scan; areas of one value count as such, and so do values cut by a window.
    may_be_magnitude: False of a CT or PET scan, whose air is never that of a magnitude of a complex signal.
    Zero for images of one value, and for those under 8 x 8 pixels. Raises UserError for pixels that are not finite.
    """
    images = images[None] if images.ndim == 2 else images
    chosen = np.unique(np.linspace(0, len(images) - 1, SLICES).astype(int))
    stack = images[chosen].astype(np.float64)
    if not np.isfinite(stack).all():
        raise UserError("image has pixels that are not finite, expected none")
    excluded = None if padding is None else padding.reshape(images.shape)[chosen]
    for side in SIDES:
        blocks = cut(stack, side, excluded)
        if len(blocks) >= LEAST:
            break
    if not len(blocks):
        return NONE
    bright = _patient(blocks)
    tissue = blocks[bright].spread_out()
    air = air_noise(blocks[~bright]) if may_be_magnitude else None
    sigmas = None if air else slice_sigmas(tissue)
    if sigmas is None:
        return _Tissue(tissue, air).estimate()
    by_slice = between(np.arange(len(images)), chosen, sigmas)
    sigma = float(np.sqrt(np.square(by_slice).mean()))
    even = _Tissue(tissue.over(sigmas), None).estimate()
    shown = None if even.map is None else even.map * np.float32(sigma / even.sigma)
    return replace(even, sigma=sigma, map=shown, by_slice=by_slice)


def _patient(blocks: Blocks) -> Mask:
    """Which blocks show the patient: above half the mean, as everywhere, but for any zero of the scale."""
    low = float(np.percentile(blocks.mean, 1))
    bright: Mask = blocks.mean >= low + 0.5 * (float(blocks.mean.mean()) - low)
    return bright


class _Tissue:
    """Blocks that show the patient; air: the noise around, of a magnitude image."""

    def __init__(self, blocks: Blocks, air: Air | None) -> None:
        usual = _usual(blocks)
        self.blocks, self.air = blocks[usual], air
        self.periodograms = self.blocks.periodograms()

    def estimate(self) -> NoiseEstimate:
        """Measured twice: as if the noise were the same everywhere, and with the map that this gives."""
        relative = np.ones(len(self.blocks))
        spectrum = self._spectrum(relative, self.air.sigma if self.air else None)
        if spectrum.variance <= (1e-9 * np.abs(self.blocks.images).max()) ** 2:
            return NONE
        sigma = self._agreed(spectrum)
        factors, mean = np.ones((REGIONS, REGIONS)), 1.0
        for _ in range(MAPPED):  # a region's quietest blocks are not its middle: what is left shows in the next map
            factors = factors / mean * self._factors(spectrum, relative, sigma)
            at_blocks = _interpolated(factors, self._positions())
            mean = float(np.sqrt(np.square(at_blocks).mean()))
            relative = at_blocks / mean
        if np.std(np.log(relative)) < VARYING:
            spectrum = self._spectrum(relative, sigma)
            return NoiseEstimate(self._agreed(spectrum), spectrum.correlations, self.air is not None)
        # the very flattest blocks would be those where the map says too much
        spectrum = self._spectrum(relative, sigma, FLAT)
        sigma = float(np.sqrt(spectrum.variance))
        rows, columns = (_in_regions(np.arange(n), n) for n in self.blocks.images.shape[1:])
        image = _interpolated(factors, np.stack(np.meshgrid(rows, columns, indexing="ij")))
        shown = (image * (sigma / mean)).astype(np.float32)
        return NoiseEstimate(sigma, spectrum.correlations, self.air is not None, shown)

    def _agreed(self, spectrum: Spectrum) -> float:
        """The standard deviation in the air, where that of the tissue is about the same; else the tissue's."""
        sigma = float(np.sqrt(spectrum.variance))
        if self.air is not None and AGREE[0] < sigma / self.air.sigma < AGREE[1]:
            return self.air.sigma
        return sigma

    def _even(self, relative: Array, sigma: float | None) -> Array:
        """Periodograms as they would be if the noise were everywhere that of bright tissue, where ``relative`` is 1."""
        variance = np.square(relative)
        if self.air is not None and sigma is not None:
            variance = variance * variance_of_magnitude(self.blocks.square, sigma * relative, self.air.coils)
        even: Array = self.periodograms / variance[:, None, None]
        return even

    def _spectrum(self, relative: Array, sigma: float | None, flattest: float = FLATTEST) -> Spectrum:
        return noise_spectrum(self._even(relative, sigma), self.blocks.side, self.air is not None, flattest)

    def _factors(self, spectrum: Spectrum, relative: Array, sigma: float) -> Array:
        """(REGIONS, REGIONS): the noise over that of the spectrum; a region of few blocks has its neighbour's."""
        energy = spectrum.energies(self._even(relative, sigma))
        expected = float(np.quantile(spectrum.noise_energies(), FLAT))
        y, x = self._positions()
        factors = np.full((REGIONS, REGIONS), np.nan)
        for i, j in np.ndindex(factors.shape):
            here = (np.abs(y - i) < 1) & (np.abs(x - j) < 1)
            if here.sum() >= LEAST_BLOCKS:
                factors[i, j] = np.sqrt(np.quantile(energy[here], FLAT) / expected)
        measured = np.isfinite(factors)
        if measured.sum() < LEAST_REGIONS:
            return np.ones_like(factors)
        nearest = ndimage.distance_transform_edt(~measured, return_distances=False, return_indices=True)
        filled: Array = factors[tuple(nearest)]
        return filled

    def _positions(self) -> Array:
        """(2, blocks): rows and columns of the blocks' middles, in regions."""
        middles = self.blocks.corners[:, 1:] + (self.blocks.side - 1) / 2
        lengths = self.blocks.images.shape[1:]
        return np.stack([_in_regions(m, n) for m, n in zip(middles.T, lengths, strict=True)])


def _in_regions(pixels: NDArray[Any], length: int) -> Array:
    """Positions along an axis to regions: 0 in the middle of the first, REGIONS - 1 in the middle of the last."""
    position: Array = (pixels + 0.5) / length * REGIONS - 0.5
    return position


def _interpolated(factors: Array, positions: Array) -> Array:
    found: Array = ndimage.map_coordinates(factors, positions, order=1, mode="nearest")
    return found


def _usual(blocks: Blocks) -> Mask:
    """Which blocks are of slices that are not much quieter than the others."""
    slices, variance = blocks.corners[:, 0], blocks.square - np.square(blocks.mean)
    floors = {
        k: np.quantile(variance[here], FLAT)
        for k in np.unique(slices)
        if (here := slices == k).sum() >= LEAST_BLOCKS
    }  # fmt: skip
    quiet = [k for k, value in floors.items() if value < QUIET**2 * np.median(list(floors.values()))]
    usual: Mask = ~np.isin(slices, quiet)
    return usual
