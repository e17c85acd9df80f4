"""A volume with its axes turned to the patient's: x to the left, y to the back, z to the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from cdm4mi.io import Volume
from cdm4mi.io.formats import is_positioned

DIRECTIONS = ("RL", "AP", "IS")
"""Letters at the low and the high end of the axes x, y and z."""
OBLIQUE = 0.25
"""Cosine (75 degrees) from which an edge has the letter of a further axis beside its first: "RA"."""
SAME_VOXELS = 0.1
"""How far, in voxels, the corners of two scans may lie apart that are drawn on each other."""


@dataclass
class Oriented:
    """Values (time, z, y, x), float32, in physical units; each axis is the one nearest to the patient's L, P or S.

    affine: 4 x 4, (x, y, z) to RAS millimetres. letters: at the low and high end of x, y and z, None where the file
    does not say how the patient lies. acquired: the axis, 0 for x to 2 for z, along which the slices were acquired.
    """

    array: NDArray[Any]
    affine: NDArray[Any]
    letters: list[list[str]] | None
    acquired: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y and x."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> list[float]:
        """Millimetres between voxels along x, y and z."""
        return [float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0)]

    def corners(self) -> NDArray[Any]:
        """The positions (RAS mm) of the first and the last voxel."""
        ends = np.array([[0, 0, 0, 1], [n - 1 for n in self.shape[::-1]] + [1]])
        positions: NDArray[Any] = (ends @ self.affine.T)[:, :3]
        return positions

    def on_voxels_of(self, other: Oriented) -> bool:
        """Whether the voxels are those of another volume, to a tenth of a voxel."""
        away = np.abs(self.corners() - other.corners()).max()
        return self.shape == other.shape and bool(away < SAME_VOXELS * min(self.spacing))


def is_placed(volume: Volume) -> bool:
    """Whether the file says where the scan lies in the patient."""
    return volume.kind is None or is_positioned(volume.kind)


def oriented(volume: Volume, like: Volume | None = None) -> Oriented:
    """Swap and mirror the axes of a grey volume so that they run to L, P and S; no voxel is interpolated.

    like: a scan whose position is taken, where the volume's file has none. The letters of an oblique axis are those of
    all directions that it points to, the nearest first.
    """
    source = volume if like is None else like
    affine = _drawn_affine(source)
    ijk = volume.array.reshape(-1, *volume.shape[-3:]).T
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    turned = affine @ inv_ornt_aff(turn, ijk.shape[:3])
    letters = [[_letters(-axis), _letters(axis)] for axis in turned[:3, :3].T]
    array = np.ascontiguousarray(apply_orientation(ijk, turn).T)
    return Oriented(array, turned, letters if is_placed(source) else None, int(turn[2, 0]))


def voxel_of(position: tuple[int, int, int], volume: Volume, turned: Oriented) -> list[int]:
    """The voxel (x, y, z) of a volume's turned axes that is its voxel (slice, row, column)."""
    at = np.linalg.solve(turned.affine, _drawn_affine(volume) @ [*position[::-1], 1])
    return [round(float(n)) for n in at[:3]]


def _drawn_affine(volume: Volume) -> NDArray[Any]:
    """(column, row, slice) to RAS mm; rows and columns of a plain picture run down and to the right, as stored."""
    affine: NDArray[Any] = volume.affine
    return affine if is_placed(volume) else np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.abs(affine)


def _letters(direction: NDArray[Any]) -> str:
    """The letters of a direction (RAS), the nearest axis first: "L", or "LP" between left and posterior."""
    cosines = direction / np.linalg.norm(direction) * [-1, -1, 1]
    order = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    return "".join(DIRECTIONS[axis][int(cosines[axis] > 0)] for axis in order if abs(cosines[axis]) > OBLIQUE)
