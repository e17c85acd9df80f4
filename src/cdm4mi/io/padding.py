"""NaN where nothing was measured (SPM, FreeSurfer, PET tools) as padding, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io.volume import Source, Volume


def nan_as_padding(volume: Volume, name: str) -> Volume:
    """Mark NaN as padding with a warning that counts it, and put a background value in its place.

    That is 0, or the least value where some are negative. UserError for infinite values, and where all are NaN.
    """
    finite = np.isfinite(volume.array)
    if finite.all():
        return volume
    infinite = int(np.isinf(volume.array).sum())
    if infinite:
        raise UserError(f"{name}: {infinite} voxel(s) are infinite, expected finite values, or NaN as padding")
    if not finite.any():
        raise UserError(f"{name}: all voxels are NaN, expected an image")
    if volume.channel_axis is not None or volume.source is None:
        raise UserError(f"{name}: {int((~finite).sum())} value(s) of a colour image are NaN, expected finite values")
    padding, stated = ~finite, volume.padding
    image = finite if stated is None else finite & ~stated
    background = min(0.0, float(volume.array[image].min())) if image.any() else 0.0
    warning = f"{int(padding.sum())} voxel(s), {padding.mean():.1%}, are NaN: taken as padding and kept"
    return replace(
        volume,
        array=np.where(padding, np.float32(background), volume.array),
        padding=padding if stated is None else padding | stated,
        source=replace(volume.source, nan_padding=True),
        warnings=[*volume.warnings, warning],
    )


def padding_as_nan(volume: Volume, template: Source | None) -> Volume:
    """NaN in the padding again, where it was in the file that ``template`` stands for."""
    if template is None or not template.nan_padding or volume.padding is None:
        return volume
    return replace(volume, array=np.where(volume.padding, np.float32(np.nan), volume.array))
