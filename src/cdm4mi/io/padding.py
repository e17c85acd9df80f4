"""NaN where nothing was measured (SPM, FreeSurfer, PET tools) as padding, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import converted, count_where, empty, planes
from cdm4mi.io.volume import Source, Volume


def nan_as_padding(volume: Volume, name: str) -> Volume:
    """Mark NaN as padding with a warning that counts it, and put a background value in its place.

    That is 0, or the least value where some are negative. UserError for infinite values, and where all are NaN.
    """
    array = volume.array
    missing = count_where(array, lambda plane: ~np.isfinite(plane))
    if not missing:
        return volume
    infinite = count_where(array, np.isinf)
    if infinite:
        raise UserError(f"{name}: {infinite} voxel(s) are infinite, expected finite values, or NaN as padding")
    if missing == array.size:
        raise UserError(f"{name}: all voxels are NaN, expected an image")
    if volume.channel_axis is not None or volume.source is None:
        raise UserError(f"{name}: {missing} value(s) of a colour image are NaN, expected finite values")
    padding, background = empty(array.shape, bool), 0.0
    stated = padding if volume.padding is None else volume.padding
    for mask, known, plane in zip(planes(padding), planes(stated), planes(array), strict=True):
        mask[...] = np.isnan(plane) | (known if volume.padding is not None else False)
        background = min(background, float(plane.min(initial=0.0, where=~mask)))
    warning = f"{missing} voxel(s), {missing / array.size:.1%}, are NaN: taken as padding and kept"
    return replace(
        volume,
        array=converted(array, np.float32, lambda plane: np.where(np.isnan(plane), np.float32(background), plane)),
        padding=padding,
        source=replace(volume.source, nan_padding=True),
        warnings=[*volume.warnings, warning],
    )


def padding_as_nan(volume: Volume, template: Source | None) -> Volume:
    """NaN in the padding again, where it was in the file that ``template`` stands for."""
    if template is None or not template.nan_padding or volume.padding is None:
        return volume
    array = empty(volume.shape, np.float32)
    for out, plane, padding in zip(planes(array), planes(volume.array), planes(volume.padding), strict=True):
        out[...] = np.where(padding, np.float32(np.nan), plane)
    return replace(volume, array=array)
