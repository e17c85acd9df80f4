"""What is decided of a whole scan, and from that how some of its slices go into the network and come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.beside import ContrastSlices, neighbours_of
from cdm4mi.inference.bright import excess
from cdm4mi.inference.calibration import calibrated
from cdm4mi.inference.low_frequencies import keep_low_frequencies
from cdm4mi.inference.record import NoiseLevel, Uncertainty
from cdm4mi.io import Derivation, InputRecord, Volume, arrays
from cdm4mi.measure.noise_level import NoiseEstimate
from cdm4mi.models.about import Calibration
from cdm4mi.window import IntensityWindow

Texture = tuple[float, float, float]
"""Of noise: correlation with the next row and the next column, -1 to 1, and 1 for a magnitude (MR), else 0."""
WHITE: Texture = (0.0, 0.0, 0.0)
METAL = 3000.0
"""HU above which a CT shows metal, which stays as it is; so does what lies below the window (padding)."""
OUTSIDE = 4.0
"""A voxel further from the window, or from the tissue around it, than this many noise levels is no noise."""


@dataclass(frozen=True)
class Slab:
    """Some slices of a scan: as they were found (physical units), as the network is given them, what is beyond its
    window, which pixels are left as found, and how many lie above the window."""

    index: list[int]
    images: NDArray[Any]
    condition: NDArray[Any]
    beyond: NDArray[Any]
    left: NDArray[np.bool_]
    above: int


@dataclass(frozen=True)
class Scan:
    """What is decided of a whole scan before its first slice is restored.

    sigma, used, share: of each slice (N,), the standard deviation of its noise and what the model is given for it on
    [-1, 1], and the share of what that takes away that is taken away; typical: root mean square of ``used``. measured:
    the noise that was found in the scan, None where it was not looked at; relative_level: (rows, columns), the standard
    deviation over that of the slice, None where it does not vary or the model takes none. beside: the other contrasts.
    least: the value under which no restored voxel lies. cutoff: cycles a pixel up to which frequencies stay as they
    are. spreads: whether the samples' standard deviation is asked for; planes: in how many the volume is restored
    (``planes.planes_of``); one_by_one: whether each slice has times of its own. key: JSON values that the result
    follows from.
    """

    volume: Volume
    norm: IntensityWindow
    seed: int
    sigma: NDArray[np.float64]
    used: NDArray[np.float64]
    share: NDArray[np.float64]
    texture: Texture
    measured: NoiseEstimate | None
    relative_level: NDArray[np.float32] | None
    beside: list[ContrastSlices]
    least: float
    cutoff: float | None
    spreads: bool
    uncertainty: Uncertainty | None
    planes: int
    one_by_one: bool
    typical: float
    noise_level: NoiseLevel
    about: InputRecord
    derivation: Derivation
    key: dict[str, Any]
    warnings: list[str]

    def slab(self, index: list[int], reach: int) -> Slab:
        """What the network is given of some slices: their own, ``reach`` neighbours' on each side, other contrasts'."""
        images, length = self.volume.images(), len(self.used) // self.volume.times
        beside = [[k // length * length + p for p in neighbours_of(k % length, length, reach)] for k in index]
        seen = sorted({*index, *(k for positions in beside for k in positions)})
        at = {k: n for n, k in enumerate(seen)}
        sigma = self.sigma[seen]
        y = self.norm.normalised(images[seen])
        limit = (1 + OUTSIDE * np.maximum(self.used[seen], sigma)).astype(y.dtype)[:, None, None, None]
        above = excess(y, sigma)
        clipped = (y - above).clip(-limit, limit)
        further = [clipped[[at[k] for k in positions]] for positions in zip(*beside, strict=True)]
        others = [contrast[index][:, None] for contrast in self.beside]
        own, found = [at[k] for k in index], images[index]
        left = ((y[own] < -limit[own]) | (found > METAL)) & (self.norm.modality == "CT")
        if self.volume.padding is not None:
            left |= self.volume.padding.reshape(images.shape)[index]
        return Slab(
            index,
            found,
            np.concatenate([clipped[own], *further, *others], 1),
            (y - clipped)[own],
            left,
            int(np.count_nonzero(above[own] > 0)),
        )

    def release(self) -> None:
        """Give the memory back that shows arrays in files."""
        for array in (self.volume.array, self.volume.padding, *(contrast.array for contrast in self.beside)):
            if array is not None:
                arrays.release(array)

    def physical(
        self, slab: Slab, mean: NDArray[Any], spread: NDArray[Any], calibration: Calibration | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None, float]:
        """The restored images of a slab and their standard deviation, in the scan's units, and the sum of the squares
        of what was put back of the scan's low frequencies.

        mean, spread: of the samples, on [-1, 1]; calibration: of the model, used where ``uncertainty`` says so.
        """
        restored = self.norm.physical(mean + slab.beyond)
        put_back = 0.0
        if self.cutoff is not None:
            found, restored = restored, keep_low_frequencies(restored, slab.images, self.cutoff)
            put_back = float(np.square(restored - found, dtype=np.float64).sum())
        restored = np.maximum(restored, self.least)
        restored[slab.left] = slab.images[slab.left]
        if not self.spreads:
            return restored, None, put_back
        if self.uncertainty is not None and self.uncertainty.kind is not None and calibration is not None:
            planes = spread.reshape(-1, *spread.shape[-2:])
            levels = np.repeat(self.used[slab.index], self.volume.channels)
            ratio = 1.0 if self.uncertainty.bootstrap is None else self.uncertainty.bootstrap
            spread = calibrated(calibration, planes, levels, self.uncertainty.kind, ratio).reshape(spread.shape)
        return restored, spread / self.norm.scale, put_back


def least_value(volume: Volume, norm: IntensityWindow) -> float:
    """The value under which no restored voxel lies; -inf where there is no such value.

    Magnitudes and activities, which begin at 0, stay there, and numbers stored without a sign stay in their type; the
    scan's own values, of whatever reason, are never under it.
    """
    (least, _), source = arrays.limits(volume.array), volume.source
    if norm.modality != "CT" and not volume.quantity:
        return min(0.0, least)
    if source is not None and source.dtype is not None and source.dtype.kind == "u" and source.slope > 0:
        return min(least, source.intercept)
    return -np.inf
