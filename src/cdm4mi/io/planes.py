"""Which stored axis the slices lie along, for files whose header names no acquired plane (NIfTI, MetaImage, NRRD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cdm4mi.io.arrays import contiguous
from cdm4mi.io.volume import Source, Volume

THICK = 1.1
"""An axis is the slices' where its spacing is this many times that of each other axis."""
LEAST_SIDE = 8
"""An axis with fewer voxels is no side of a plane, where each other axis has as many or more."""


def slice_axis(shape: tuple[int, ...], spacing: tuple[float, ...], stated: int | None = None) -> int:
    """The axis, of (slices, rows, columns) as stored, along which the slices were acquired.

    A scan that was turned to other axes (fslreorient2std, MONAI's Orientation) keeps its spacing: the planes are those
    of the two finest axes. ``shape`` and ``spacing`` (mm) are of the three axes; ``stated``: the axis that the header
    names, which decides where the spacings are alike. The first axis where nothing tells.
    """
    for short in (shape_axis for shape_axis in (_only(shape, 1), _only(shape, LEAST_SIDE - 1)) if shape_axis >= 0):
        return short
    thick = int(np.argmax(spacing))
    if spacing[thick] >= THICK * max(s for n, s in enumerate(spacing) if n != thick) - 1e-6:
        return thick
    return 0 if stated is None else stated


def _only(shape: tuple[int, ...], most: int) -> int:
    """The one axis of at most ``most`` voxels, -1 where there is none or several."""
    short = [n for n, length in enumerate(shape) if length <= most]
    return short[0] if len(short) == 1 else -1


def acquired(volume: Volume, stated: int | None = None) -> Volume:
    """The volume with its slices along the acquired axis; ``Source.slice_axis`` says which stored axis that was."""
    axis = slice_axis(volume.shape[-3:], volume.spacing, stated)
    if volume.channel_axis is not None or axis == 0 or volume.source is None:
        return volume
    found = reordered(volume, [axis, *(n for n in range(3) if n != axis)])
    return replace(found, source=replace(volume.source, slice_axis=axis))


def as_stored(volume: Volume, template: Source | None) -> Volume:
    """The volume with the axes in the order of the file that ``template`` was: what ``acquired`` does, undone."""
    if template is None or template.slice_axis == 0:
        return volume
    order = [1, 2]
    order.insert(template.slice_axis, 0)
    return reordered(volume, order)


def reordered(volume: Volume, order: Sequence[int]) -> Volume:
    """A grey volume with its axes (slices, rows, columns) in another order; every voxel keeps its place in the patient.

    order: of the axes of this volume.
    """
    before = range(volume.array.ndim - 3)
    axes = [*before, *(len(before) + axis for axis in order)]
    padding = None if volume.padding is None else contiguous(volume.padding.transpose(axes), bool)
    columns = [2 - axis for axis in reversed(order)]
    affine = volume.affine[:, [*columns, 3]]
    return replace(volume, array=volume.array.transpose(axes), affine=affine, padding=padding)
