"""Physical units to [-1, 1] and back: a fixed HU window for CT, stored percentiles for MR and PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io import Volume

CT_AIR = -200.0
"""A scan with values below this, in whatever file, is taken for CT in HU when its header does not say."""


@dataclass(frozen=True)
class Normalisation:
    """The linear map low -> -1, high -> +1 of physical units; ``to_dict`` is what inverts it anywhere."""

    low: float
    high: float
    modality: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise UserError(f"intensity window: found {self.low:g} to {self.high:g}, expected low below high")

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Physical units to [-1, 1]; what lies outside the window goes outside and is not clipped. float32."""
        scale = np.float32(2.0 / (self.high - self.low))
        return (array.astype(np.float32) - np.float32(self.low)) * scale - np.float32(1.0)

    def invert(self, array: np.ndarray) -> np.ndarray:
        """[-1, 1] to physical units. float32."""
        half = np.float32((self.high - self.low) / 2)
        return (array.astype(np.float32) + np.float32(1.0)) * half + np.float32(self.low)

    def outside(self, array: np.ndarray) -> np.ndarray:
        """Where an array in physical units lies outside the window, bool."""
        return (array < self.low) | (array > self.high)

    def to_dict(self) -> dict[str, float | str]:
        """For the record beside an output."""
        return asdict(self)


def modality_of(volume: Volume) -> str:
    """CT, MR or PT: what the header says, else CT where values fall below -200 (air in HU) and MR otherwise."""
    if volume.modality in ("CT", "MR", "PT"):
        return volume.modality
    return "CT" if float(volume.array.min()) < CT_AIR else "MR"


def foreground(array: np.ndarray, modality: str) -> np.ndarray:
    """Rough mask of the patient, bool: above -500 HU for CT, above half the mean for MR and PET."""
    return array > (-500.0 if modality == "CT" else 0.5 * float(array.mean()))


def normalisation_for(
    volume: Volume, window: Sequence[float] = (-1000.0, 1000.0), percentiles: Sequence[float] = (0.0, 99.5)
) -> Normalisation:
    """The map for one scan: ``window`` in HU for CT; for MR and PET the ``percentiles`` of its foreground.

    The lower percentile counts from the whole scan's least value (0: air is -1), so that magnitude images keep their
    zero. Raises UserError for a scan that is constant or not finite.
    """
    modality = modality_of(volume)
    if modality == "CT":
        return Normalisation(float(window[0]), float(window[1]), modality)
    array = volume.array
    if not np.isfinite(array).all():
        raise UserError("scan: found values that are not finite, expected numbers")
    inside = array[foreground(array, modality)]
    if inside.size == 0 or float(array.min()) == float(array.max()):
        raise UserError(f"scan: found the one value {float(array.flat[0]):g} everywhere, expected an image")
    low = float(array.min()) if percentiles[0] == 0 else float(np.percentile(inside, percentiles[0]))
    return Normalisation(low, float(np.percentile(inside, percentiles[1])), modality)
