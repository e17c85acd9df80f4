"""Lesions of a known shape: discs and spheres with soft edges, and flat tissue to put them into."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[Any]
EDGE = 0.7
"""Standard deviation in pixels of the Gaussian that softens a lesion's edge: no sharper than a scanner's."""


class Site(NamedTuple):
    """Where a lesion's centre lies: slice, row and column, from 0."""

    slice: int
    row: int
    column: int


def pixel_size(spacing: tuple[float, ...]) -> float:
    """Side in mm of the square with a pixel's area; spacing: mm along (..., rows, columns)."""
    return math.sqrt(spacing[-2] * spacing[-1])


def lesion(
    shape: tuple[int, ...],
    site: Site,
    diameter: float,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    sphere: bool = False,
) -> NDArray[np.float64]:
    """A lesion of contrast 1 in slices of ``shape`` (slices, rows, columns): 1 inside, 0 outside, with a soft edge.

    diameter: in mm, of a disc in the site's slice alone, or of a sphere, whose other slices hold smaller discs.
    spacing: mm along (slices, rows, columns).
    """
    image, pixel = np.zeros(shape), pixel_size(spacing)
    distance = _distance(shape, site, spacing)
    for k in range(shape[0]) if sphere else (site.slice,):
        square = (diameter / 2) ** 2 - ((k - site.slice) * spacing[0]) ** 2
        if square > 0:
            image[k] = np.clip((math.sqrt(square) - distance) / pixel + 0.5, 0, 1)
    width = (0.0, *(EDGE * pixel / along for along in spacing[1:]))
    softened: NDArray[np.float64] = ndimage.gaussian_filter(image, width, mode="constant")
    return softened


def inside(
    shape: tuple[int, ...], site: Site, diameter: float, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> NDArray[np.bool_]:
    """The pixels (rows, columns) of the site's slice up to half of the diameter (mm) from its centre."""
    mask: NDArray[np.bool_] = _distance(shape, site, spacing) <= diameter / 2
    return mask


def _distance(shape: tuple[int, ...], site: Site, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    rows, columns = ((np.arange(n) - at) * mm for n, at, mm in zip(shape[1:], site[1:], spacing[1:], strict=True))
    found: NDArray[np.float64] = np.hypot(rows[:, None], columns)
    return found


def flat_sites(
    images: Image, values: tuple[float, float], count: int, apart: int, size: int, border: int
) -> tuple[list[Site], float]:
    """The flattest sites of the slice that has the flattest ``count`` of them, and the deviation of the last one.

    images: (slices, rows, columns). values: least and most mean of the tissue. apart: pixels between centres along rows
    or columns, so that lesions never overlap; size: side of the square whose standard deviation says how flat it is;
    border: pixels from the image's edge. A slice with fewer sites is taken where none has ``count``; [] where no square
    has the mean that is asked for.
    """
    best: tuple[list[Site], float] = [], np.inf
    for k, image in enumerate(images.astype(np.float64)):
        mean = ndimage.uniform_filter(image, size)
        deviation = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, size) - mean**2, 0))
        deviation[(mean < values[0]) | (mean > values[1])] = np.inf
        within = np.zeros(image.shape, bool)
        within[border : image.shape[0] - border, border : image.shape[1] - border] = True
        deviation[~within] = np.inf
        sites: list[Site] = []
        last = np.inf
        while len(sites) < count:
            row, column = (int(i) for i in np.unravel_index(np.argmin(deviation), deviation.shape))
            if not np.isfinite(deviation[row, column]):
                break
            last = float(deviation[row, column])
            sites.append(Site(k, row, column))
            near = np.s_[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1]
            deviation[near] = np.inf
        if (-len(sites), last) < (-len(best[0]), best[1]):
            best = sites, last
    return best


def region(image: Image, site: Site, side: int) -> Image:
    """The square of ``side`` pixels of an image (..., rows, columns) with the site at [side // 2, side // 2]."""
    row, column = site.row - side // 2, site.column - side // 2
    return image[..., row : row + side, column : column + side]
