"""Small blocks of a stack of images, as periodograms: where they lie, what noise alone would make of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDES = 16, 8
"""Pixels along a block: 16, but where an image has fewer than ``LEAST`` of these."""
LEAST = 12
MOST, CONSIDERED = 16384, 131072
"""Blocks that are looked at, and that they are chosen from."""
EXTREME = 0.02
"""A block with more than this share of pixels at the least or greatest value of all is cut by a window."""
SIMULATED = 4096
"""Blocks of white noise that stand for the distribution of noise."""


@dataclass(frozen=True)
class Blocks:
    """Square blocks of a stack of images (N, rows, columns).

    corners: (blocks, 3), slice, row and column of the first pixel; mean, square: of the values and of their squares,
    weighted by the square of Hann's window.
    """

    images: Array
    side: int
    corners: NDArray[np.intp]
    mean: Array
    square: Array

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, chosen: Mask | NDArray[np.intp]) -> Blocks:
        return Blocks(self.images, self.side, self.corners[chosen], self.mean[chosen], self.square[chosen])

    def spread_out(self, most: int = MOST) -> Blocks:
        """At most so many of them, evenly spread."""
        return self if len(self) <= most else self[np.linspace(0, len(self) - 1, most).astype(np.intp)]

    def over(self, sigmas: Array) -> Blocks:
        """Each slice divided by a number (N,)."""
        of_blocks = sigmas[self.corners[:, 0]]
        images = self.images / sigmas[:, None, None]
        return Blocks(images, self.side, self.corners, self.mean / of_blocks, self.square / np.square(of_blocks))

    def periodograms(self) -> Array:
        """(blocks, side // 2 + 1, side // 2 + 1): power of each block at the frequencies of one quadrant."""
        view = sliding_window_view(self.images, (self.side, self.side), axis=(1, 2))
        return periodograms(view[tuple(self.corners.T)])


def cut(images: Array, side: int, excluded: Mask | None = None) -> Blocks:
    """Blocks of (N, rows, columns) that overlap, without those that touch padding or are cut by a window.

    excluded: further pixels that no block may touch. No blocks of images that are smaller than one.
    """
    rows, columns = images.shape[1:]
    corners, means, squares = [np.zeros((0, 3), np.intp)], [np.zeros(0)], [np.zeros(0)]
    step = max(1, side // 4)
    while len(images) * (rows // step) * (columns // step) > CONSIDERED:
        step += 1
    bad = padding(images) if excluded is None else padding(images) | excluded
    extreme = (images == images.min()) | (images == images.max())
    most = max(2, EXTREME * side**2)  # an image has a least and a greatest pixel
    weights = hann(side) ** 2
    for k in range(len(images) if side <= min(rows, columns) else 0):
        values, touched, cut_off = (
            sliding_window_view(a[k], (side, side))[::step, ::step] for a in (images, bad, extreme)
        )
        usable = ~touched.any((-1, -2)) & (cut_off.sum((-1, -2)) <= most)
        at = np.argwhere(usable) * step
        corners.append(np.column_stack([np.full(len(at), k), at]))
        means.append(np.einsum("nij,ij->n", values[usable], weights))
        squares.append(np.einsum("nij,nij,ij->n", values[usable], values[usable], weights))
    return Blocks(images, side, np.concatenate(corners), np.concatenate(means), np.concatenate(squares))


def padding(images: Array) -> Mask:
    """Pixels (N, rows, columns) in areas of one value, 3 x 3 or larger."""
    size = (1, 3, 3)
    constant = ndimage.maximum_filter(images, size) == ndimage.minimum_filter(images, size)
    # grown by as much as the filter took away
    grown: Mask = ndimage.binary_dilation(constant, np.ones(size, bool))
    return grown


@functools.cache
def hann(side: int) -> Array:
    """(side, side) Hann's window, of sum of squares 1."""
    line = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    window: Array = np.outer(line, line) / (line**2).sum()
    return window


def periodograms(blocks: NDArray[np.floating]) -> Array:
    """(N, side, side) to the power of each at the frequencies k / side (cycles per pixel) of one quadrant.

    A plane is taken away, the window is Hann's, and quadrants that mirror each other are averaged; the mean over all
    frequencies of the plane is the block's variance.
    """
    side = blocks.shape[-1]
    window = hann(side)
    ramp = np.arange(side) - (side - 1) / 2
    plane = np.stack([np.ones((side, side)), ramp[:, None] * np.ones(side), ramp * np.ones((side, 1))])
    norms = np.einsum("pij,ij->p", plane**2, window**2)
    coefficients = np.einsum("nij,pij,ij->np", blocks, plane, window**2, optimize=True) / norms
    rest = (blocks - np.einsum("np,pij->nij", coefficients, plane)) * window
    power = np.abs(np.fft.rfft2(rest)) ** 2
    half = side // 2 + 1
    mirrored = power[:, -np.arange(half) % side]
    folded: Array = (power[:, :half] + mirrored) / 2
    return folded


@functools.cache
def shares(side: int) -> Array:
    """Share of the whole plane of frequencies that each of one quadrant stands for; the sum is 1."""
    count = np.full(side // 2 + 1, 2.0)
    count[0] = 1
    if side % 2 == 0:
        count[-1] = 1
    share: Array = np.outer(count, count) / side**2
    return share


@functools.cache
def of_white_noise(side: int) -> Array:
    """Periodograms of unit white noise: of whitened blocks, what their sums over frequencies vary by."""
    return periodograms(np.random.default_rng(0).standard_normal((SIMULATED, side, side)))
