"""Physical units to [-1, 1] and back: a fixed HU window for CT, stored percentiles for MR and PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cdm4mi.degradation import Frame
from cdm4mi.errors import UserError
from cdm4mi.io import Volume

COLOUR = "RGB"
"""What stands in the place of a modality for a colour image."""
CT_AIR = -500.0
"""A scan with a twentieth of its values below this, in whatever file, is taken for CT where its header does not say."""


@dataclass(frozen=True)
class Normalisation:
    """The linear map low -> -1, high -> +1 of physical units; ``to_dict`` is what inverts it anywhere."""

    low: float
    high: float
    modality: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise UserError(f"intensity window: found {self.low:g} to {self.high:g}, expected low below high")

    @property
    def scale(self) -> float:
        """What a difference of one physical unit is on [-1, 1]."""
        return self.frame().scale

    def frame(self, spacing: tuple[float, float] = (1.0, 1.0)) -> Frame:
        """What a degradation needs of an image: this window, and millimetres between (rows, columns)."""
        return Frame(self.low, self.high, spacing, self.modality)

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Physical units to [-1, 1]; what lies outside the window goes outside and is not clipped. float32."""
        scale = np.float32(self.scale)
        return (array.astype(np.float32) - np.float32(self.low)) * scale - np.float32(1.0)

    def invert(self, array: NDArray[Any]) -> NDArray[Any]:
        """[-1, 1] to physical units. float32."""
        half = np.float32((self.high - self.low) / 2)
        return (array.astype(np.float32) + np.float32(1.0)) * half + np.float32(self.low)

    def outside(self, array: NDArray[Any]) -> NDArray[Any]:
        """Where an array in physical units lies outside the window, bool."""
        return (array < self.low) | (array > self.high)

    def to_dict(self) -> dict[str, float | str]:
        """For the record beside an output."""
        return asdict(self)


def modality_of(volume: Volume) -> str:
    """CT, MR or PT: what the header says, else CT where a twentieth of the values are air in HU, and MR otherwise.

    RGB for a colour image.
    """
    if volume.channel_axis is not None:
        return COLOUR
    if volume.modality in ("CT", "MR", "PT"):
        return volume.modality
    return "CT" if float(np.percentile(volume.array, 5)) < CT_AIR else "MR"


def foreground(array: NDArray[Any], modality: str) -> NDArray[Any]:
    """Rough mask of the patient, bool: above -500 HU for CT, above half the mean for MR and PET.

    All of a colour image (..., channels).
    """
    if modality == COLOUR:
        return np.ones(array.shape[:-1], bool)
    return array > foreground_threshold(array, modality)


def foreground_threshold(array: NDArray[Any], modality: str) -> float:
    """The value above which a voxel counts as the patient's, physical units."""
    return -500.0 if modality == "CT" else 0.5 * float(array.mean())


def normalisation_for(
    volume: Volume, window: Sequence[float] = (-1000.0, 1000.0), percentiles: Sequence[float] = (0.0, 99.5)
) -> Normalisation:
    """The map for one scan: ``window`` in HU for CT; for MR and PET the ``percentiles`` of its foreground.

    A lower percentile of 0 stands for the value 0, which is air in a magnitude image whatever noise does to it. The
    percentiles are those of 3 x 3 means, so that noise hardly moves them. A colour image keeps its colours:
    all that its stored type holds, 0 to 255 or 65535, and 0 to 1 for floats, as in scikit-image. Raises UserError for a
    scan that is constant or not finite, and for colours of floats outside 0 to 1.
    """
    modality = modality_of(volume)
    if not np.isfinite(volume.array).all():
        raise UserError("scan: found values that are not finite, expected numbers")
    if modality == COLOUR:
        return _colour_range(volume)
    if modality == "CT":
        return Normalisation(float(window[0]), float(window[1]), modality)
    smooth = uniform_filter(volume.slices(), (0, 3, 3))
    inside = smooth[foreground(smooth, modality)]
    if volume.array.min() == volume.array.max() or inside.size == 0:
        raise UserError(f"scan: found the one value {float(volume.array.flat[0]):g} everywhere, expected an image")
    low = 0.0 if percentiles[0] == 0 else float(np.percentile(inside, percentiles[0]))
    return Normalisation(low, float(np.percentile(inside, percentiles[1])), modality)


def _colour_range(volume: Volume) -> Normalisation:
    dtype = volume.source.dtype if volume.source is not None else None
    if dtype is not None and dtype.kind == "u":
        return Normalisation(0.0, float(np.iinfo(dtype).max), COLOUR)
    low, high = float(volume.array.min()), float(volume.array.max())
    if low < 0 or high > 1:
        raise UserError(f"scan: found colours from {low:g} to {high:g} as floats, expected 0 to 1")
    return Normalisation(0.0, 1.0, COLOUR)
