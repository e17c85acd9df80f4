"""Sharpness on a step: edge spread function, its 10 to 90 % width, modulation transfer; and of all edges of a slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError


def edge_spread(region: NDArray[Any], step: float = 0.25) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean profile across the one straight edge of a region, sampled finer than the pixels (slanted edge, ISO 12233).

    Each line across the edge is shifted by the position of the edge in it, given by a straight line fitted to the
    centroids of the lines' derivatives. An edge tilted by a few degrees is thus sampled between the pixels.

    Args:
        region: (rows, columns), any units: a step, roughly along rows or columns, that crosses the whole region.
        step: bin width in pixels.

    Returns:
        Distances in pixels across the edge, rising, and the profile from 0 (dark side) to 1 (bright side).
    """
    region = np.asarray(region, dtype=np.float64)
    if region.ndim != 2 or min(region.shape) < 12 or not np.isfinite(region).all():
        raise UserError(f"edge region of shape {region.shape}, expected finite (rows, columns), at least 12 x 12")
    smooth = ndimage.gaussian_filter(region, 1.0)
    slopes = [np.abs(np.diff(smooth.mean(axis=1 - axis))).sum() for axis in (0, 1)]
    lines = region if slopes[1] > slopes[0] else region.T  # the edge runs down, each line crosses it
    if lines[:, :3].mean() > lines[:, -3:].mean():
        lines = lines[:, ::-1]
    derivative = np.diff(ndimage.gaussian_filter1d(lines, 1.0, axis=1), axis=1)
    total = np.diff(lines[:, [0, -1]].mean(axis=0))[0]
    if total <= 0:
        raise UserError("edge region: found no step across it, expected one straight edge")
    at = np.arange(derivative.shape[1]) + 0.5
    number = np.arange(len(lines))
    # near the edge only: far from it noise would move the centroid
    first = (derivative.mean(axis=0) * at).sum() / derivative.mean(axis=0).sum()
    slope, start = 0.0, first
    for reach in (lines.shape[1] / 3, 6.0, 6.0):
        near = np.abs(at - (start + slope * number)[:, None]) < reach
        weight = np.where(near, np.maximum(derivative, 0), 0)
        centroid = (weight * at).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
        slope, start = np.polyfit(number, centroid, 1)
    # distance along the edge's normal, not along the line
    distance = (np.arange(lines.shape[1]) - (start + slope * number)[:, None]) / np.hypot(1, slope)
    limit = np.floor(min(-distance[:, 0].max(), distance[:, -1].min()))
    if limit < 4:
        raise UserError("edge region: the edge comes within 4 pixels of the border, expected it in the middle")
    bins = np.rint(distance / step).astype(int)
    last = int(limit / step)
    inside = np.abs(bins) <= last
    counts = np.bincount(bins[inside] + last, minlength=2 * last + 1)
    sums = np.bincount(bins[inside] + last, lines[inside], minlength=2 * last + 1)
    held = counts > 0
    positions = np.arange(-last, last + 1) * step
    profile = np.interp(positions, positions[held], sums[held] / counts[held])
    tail = max(2, int(1.5 / step))
    low, high = profile[:tail].mean(), profile[-tail:].mean()
    return positions, (profile - low) / (high - low)


def edge_width(distance: NDArray[Any], profile: NDArray[Any]) -> float:
    """Pixels from 10 % to 90 % of an edge spread function: 2.56 sigma for a step blurred by a Gaussian."""
    crossings = []
    for level in (0.1, 0.9):
        above = int(np.argmax(profile >= level))
        before = max(above - 1, 0)
        rise = profile[above] - profile[before]
        part = (level - profile[before]) / rise if rise > 0 else 0.0
        crossings.append(distance[before] + part * (distance[above] - distance[before]))
    return float(crossings[1] - crossings[0])


def mtf(distance: NDArray[Any], profile: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Modulation transfer function: |DFT| of the edge's derivative (Hann window), 1 at frequency 0.

    Returns:
        Frequencies in cycles a pixel up to 1, and the transfer at each, corrected for the loss by finite differences.
    """
    step = float(distance[1] - distance[0])
    spread = np.diff(profile) * np.hanning(len(profile) - 1)
    size = max(1024, 2 ** int(np.ceil(np.log2(4 * len(spread)))))
    frequency = np.fft.rfftfreq(size, step)
    transfer = np.abs(np.fft.rfft(spread, size))
    transfer = transfer / transfer[0] / np.sinc(frequency * step) ** 2  # of the difference, and of the bin
    return frequency[frequency <= 1], transfer[frequency <= 1]


def frequency_at(frequency: NDArray[Any], transfer: NDArray[Any], level: float = 0.5) -> float:
    """The first frequency at which the transfer falls below a level (MTF50 for 0.5); nan where it never does."""
    below = np.flatnonzero(transfer < level)
    if not below.size or below[0] == 0:
        return float("nan")
    right = below[0]
    part = (transfer[right - 1] - level) / (transfer[right - 1] - transfer[right])
    return float(frequency[right - 1] + part * (frequency[right] - frequency[right - 1]))


STEEPEST = 98.0
"""Percentile of the gradients from which a pixel lies on an edge."""


def edge_steepness(x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any]) -> tuple[float, float, int]:
    """Sum the gradients of a slice x (rows, columns) over its edges, and those of ``ref`` there; returns (x, ref, n).

    The edges are the n pixels of ``mask`` (bool) with the steepest 2 % of x, and gradients those of Gaussian means of 1
    pixel, in units a pixel. Of ``ref`` the part along the edges of x is taken, so that noise of ``ref`` alone, which
    did not choose the edges, averages out: the ratio of both sums is 1 where x and ``ref`` are alike, less where x is
    blurred.
    """
    if x.shape != ref.shape or x.shape != mask.shape or x.ndim != 2:
        raise UserError(f"sharpness of shapes {x.shape} and {ref.shape}, expected two equal (rows, columns)")
    if not mask.any():
        return 0.0, 0.0, 0
    of_x, of_ref = (np.gradient(ndimage.gaussian_filter(image, 1.0, mode="nearest")) for image in (x, ref))
    steep = np.hypot(*of_x)
    edges = mask & (steep >= np.percentile(steep[mask], STEEPEST)) & (steep > 0)
    steep = steep[edges].astype(np.float64)
    along = sum(part[edges] * normal[edges] for part, normal in zip(of_ref, of_x, strict=True)) / steep
    return float(steep.sum()), float(along.sum()), int(edges.sum())
