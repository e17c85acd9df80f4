"""The same volume as slices along its other axes, of which a model of slices makes further restorations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.io import Volume, arrays
from cdm4mi.io.formats import is_positioned
from cdm4mi.io.planes import reordered

ALONG = {"rows": (1, 0, 2), "columns": (2, 0, 1)}
"""Axes of a volume (slice, row, column) that become slices, rows and columns, by the axis along which they then lie."""
FURTHER_AXES = {1: (), 3: tuple(ALONG)}
"""By the number of planes, the axes along which further slices lie."""
LEAST_SLICES = 16
"""Of a volume whose other planes are restored: the rows of their images."""
CUBIC = 1.5
"""Voxels whose longest side is up to so many times their shortest look alike in every plane."""
SLANT = 0.1
"""Cosine of the angle between two axes up to which they count as orthogonal."""


def planes_of(sampling: SamplingConfig, volume: Volume, least: int, contrasts: int, told: bool) -> int:
    """In how many planes a volume is restored: 1 or 3.

    sampling: whose ``planes`` is auto for three where the estimate is the mean, the voxels are near cubes, and the
    model is told the noise's texture, which is another in each plane. least: pixels along a side that the network
    needs; contrasts: further scans that it is given; told: whether it is told the texture. Raises UserError where three
    are asked for and there are none.
    """
    if sampling.planes == 1:
        return 1
    slices, needed = volume.shape[-3], max(least, LEAST_SLICES)
    why = None
    if volume.channel_axis is not None:
        why = "a colour image", "a grey one"
    elif contrasts:
        why = f"a model of {contrasts} further contrast(s)", "a model of one scan"
    elif sampling.estimate == "sample":
        why = "the estimate sample", "mean or mean-of-k"  # the mean of three samples is none
    elif slices < needed:
        why = f"a scan of {slices} slice(s)", f"at least {needed}"
    if sampling.planes == "auto":
        suits = sampling.estimate == "mean" and told and why is None and near_cubes(volume)
        return 3 if suits else 1
    if why is not None:
        raise UserError(field="planes", found=f"3 for {why[0]}", expected=why[1])
    return 3


def near_cubes(volume: Volume) -> bool:
    """Whether the voxels are known to be near cubes, in evenly spaced slices at right angles to their rows and columns.

    An affine that only numbers the voxels says nothing.
    """
    if not is_positioned(volume.kind) or volume.slice_origins is not None:
        return False
    if np.array_equal(np.abs(volume.affine), np.eye(4)):
        return False
    sides = np.array(volume.spacing)
    if sides.min() <= 0 or sides.max() > CUBIC * sides.min():
        return False
    axes = (volume.affine[:3, :3] / sides[::-1]).T
    return all(abs(float(a @ b)) <= SLANT for a, b in pairwise([*axes, axes[0]]))


def turned(volume: Volume, along: str) -> Volume:
    """A grey volume with its slices along another axis, a key of ``ALONG``; what it says of the patient stays true."""
    return replace(reordered(volume, ALONG[along]), slice_origins=None)


def shape_along(volume: Volume, along: str) -> tuple[int, ...]:
    """The shape (N, 1, rows, columns) of the images of ``turned``."""
    slices, rows, columns = (volume.shape[axis - 3] for axis in ALONG[along])
    return volume.times * slices, 1, rows, columns


def levels_along(
    sigma: NDArray[np.float64], relative: NDArray[np.float32] | None, volume: Volume, along: str
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """Noise levels of a volume's slices as those of the slices of ``turned``.

    sigma: (times, slices); relative: (rows, columns), the level over that of the slice, None where it does not vary.
    Returns the levels (N,) of the turned volume's slices, and the level over that of the slice in each of them. The
    level at a voxel is taken for the product of those of its slice, its row and its column, each the root mean square
    over the others.
    """
    squares = np.ones(volume.shape[-2:]) if relative is None else np.square(relative.astype(np.float64))
    rows, columns = np.sqrt(squares.mean(1)), np.sqrt(squares.mean(0))
    own, across = (rows, columns) if along == "rows" else (columns, rows)
    slices = np.sqrt(np.square(sigma).mean(0))
    levels = np.outer(np.sqrt(np.square(sigma).mean(1)), own).ravel()
    if np.ptp(slices) == 0 and np.ptp(across) == 0:
        return levels, None
    return levels, np.outer(_over_rms(slices), _over_rms(across)).astype(np.float32)


def _over_rms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rms = float(np.sqrt(np.square(values).mean()))
    return values / rms if rms > 0 else np.ones_like(values)


class Plane:
    """Estimates of the images of ``turned(volume, along)``, in the order of the volume's own slices.

    mean, spread: of the estimates, (N, 1, rows, columns) of the turned volume; spread may be None.
    """

    def __init__(
        self, volume: Volume, along: str, mean: NDArray[np.float32], spread: NDArray[np.float32] | None
    ) -> None:
        axes, own = ALONG[along], volume.images().shape
        turned_shape = volume.times, *(volume.shape[axis - 3] for axis in axes)
        order = 0, *(1 + axes.index(axis) for axis in range(3))

        def turned_back(images: NDArray[np.float32]) -> NDArray[np.float32]:
            # a copy: a slice of the turned array lies in as many pages of its file as it has rows
            return arrays.contiguous(images.reshape(turned_shape).transpose(order), np.float32).reshape(own)

        self.mean = turned_back(mean)
        self.spread = None if spread is None else turned_back(spread)

    def release(self) -> None:
        """Give the memory back that shows arrays in files."""
        for array in (self.mean, self.spread):
            if array is not None:
                arrays.release(array)


def mean_of_planes(
    mean: NDArray[np.float32], spread: NDArray[np.float32], planes: Sequence[Plane], index: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of slices ``index`` (n, 1, rows, columns) of a volume, the mean over their own estimates and those of the planes.

    Of standard deviations too, which that of the mean is at most.
    """
    means = [mean, *(plane.mean[index] for plane in planes)]
    spreads = [spread, *(plane.spread[index] for plane in planes if plane.spread is not None)]
    return (mean, spread) if not planes else (np.mean(means, 0), np.mean(spreads, 0))
