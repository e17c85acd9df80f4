"""Intensities of a scan: its modality, the patient in it, and the window that maps its physical units to [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cdm4mi.errors import UserError
from cdm4mi.io import Volume
from cdm4mi.io.arrays import count_where, limits
from cdm4mi.window import IntensityWindow

COLOUR = "RGB"
"""What stands in the place of a modality for a colour image."""
MODALITIES = ("CT", "MR", "PT")
"""Those of which something is known."""
NO_MAGNITUDES = ("CT", "PT")
"""Those whose images are never magnitudes of a complex signal."""
AIR = (-3100.0, -850.0)
"""HU between which the first percentile of a CT lies: air, or what scanners pad with."""
CT_MOST = 4000.0
"""HU above which the 99th percentile of a CT does not lie."""
SAMPLED = 2**24
"""Pixels that percentiles are taken of: whole slices, evenly spread over the scan; all of a scan that has no more."""


def modality_of(volume: Volume) -> str:
    """CT, MR or PT: what the header says; where it says nothing CT for values as in HU (``AIR``, ``CT_MOST``), else MR.

    RGB for a colour image. A scan of another modality counts as MR: its window is of percentiles, as its values have no
    fixed scale.
    """
    if volume.channel_axis is not None:
        return COLOUR
    if volume.modality:
        return volume.modality if volume.modality in MODALITIES else "MR"
    low, high = np.percentile(_sampled(volume), (1, 99))
    return "CT" if AIR[0] <= low <= AIR[1] and high < CT_MOST else "MR"


def guess_notice(volume: Volume) -> list[str]:
    """What modality was taken for a scan whose header states none of ``MODALITIES``, and how to say another."""
    if volume.channel_axis is not None or volume.modality in MODALITIES:
        return []
    if is_foreign(volume):
        return [f"the scan's modality is {volume.modality}, expected CT, MR or PT: treated as MR (another: `modality`)"]
    return [f"the scan does not state its modality: {modality_of(volume)} by its values (another: `modality`)"]


def is_foreign(volume: Volume) -> bool:
    """Whether the header states a modality that is none of ``MODALITIES`` (a radiograph, ultrasound ...)."""
    return bool(volume.modality) and volume.modality not in MODALITIES


def foreground(array: NDArray[Any], modality: str | None) -> NDArray[Any]:
    """Rough mask of the patient, bool: above -500 HU for CT, above half the mean for others.

    All of a colour image (..., channels).
    """
    if modality == COLOUR:
        return np.ones(array.shape[:-1], bool)
    return array > foreground_threshold(array, modality)


def foreground_threshold(array: NDArray[Any], modality: str | None) -> float:
    """The value above which a voxel counts as the patient's, physical units."""
    return -500.0 if modality == "CT" else 0.5 * float(array.mean())


def window_for(
    volume: Volume, window: Sequence[float] = (-1000.0, 1000.0), percentiles: Sequence[float] = (0.0, 99.5)
) -> IntensityWindow:
    """The map for one scan: ``window`` in HU for CT; for MR and PET the ``percentiles`` of its foreground.

    A lower percentile of 0 stands for the value 0, which is air in a magnitude image whatever noise does to it. The
    percentiles are those of 3 x 3 means, so that noise hardly moves them, over ``SAMPLED`` pixels. A colour image keeps
    its colours: all that its stored type holds, 0 to 255 or 65535, and 0 to 1 for floats, as in scikit-image. Raises
    UserError for a scan that is constant or not finite, and for colours of floats outside 0 to 1.
    """
    modality = modality_of(volume)
    if count_where(volume.array, lambda plane: ~np.isfinite(plane)):
        raise UserError("scan: found values that are not finite, expected numbers")
    if modality == COLOUR:
        return _colour_range(volume)
    if modality == "CT":
        return IntensityWindow(float(window[0]), float(window[1]), modality)
    smooth = uniform_filter(_sampled(volume), (0, 3, 3))
    inside = smooth[foreground(smooth, modality)]
    least, most = limits(volume.array)
    if least == most or inside.size == 0:
        raise UserError(f"scan: found the one value {least:g} everywhere, expected an image")
    low = 0.0 if percentiles[0] == 0 else float(np.percentile(inside, percentiles[0]))
    return IntensityWindow(low, float(np.percentile(inside, percentiles[1])), modality)


def _sampled(volume: Volume) -> NDArray[Any]:
    """Slices that stand for the scan (n, rows, columns), of colour (n, rows, columns, 3)."""
    slices = volume.slices()
    count = max(1, SAMPLED // slices[0].size)
    if len(slices) <= count:
        return slices
    chosen: NDArray[Any] = slices[np.unique(np.linspace(0, len(slices) - 1, count).astype(int))]
    return chosen


def _colour_range(volume: Volume) -> IntensityWindow:
    dtype = volume.source.dtype if volume.source is not None else None
    if dtype is not None and dtype.kind == "u":
        return IntensityWindow(0.0, float(np.iinfo(dtype).max), COLOUR)
    low, high = limits(volume.array)
    if low < 0 or high > 1:
        raise UserError(f"scan: found colours from {low:g} to {high:g} as floats, expected 0 to 1")
    return IntensityWindow(0.0, 1.0, COLOUR)
