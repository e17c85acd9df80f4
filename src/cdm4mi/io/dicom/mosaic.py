"""Mosaics of Siemens and grids of UIH: the slices of one volume side by side in one image (fMRI, diffusion)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cdm4mi.io.dicom.values import number, numbers, private_value, texts, whole
from cdm4mi.io.quiet import quiet

_GRID_COUNT, _GRID_TILES = 0x00651050, 0x00651051
"""UIH's private elements: the number of slices, and a sequence with the position of each (as UIH stated in public).

They stand in ceil(sqrt(number)) columns, and as many rows as that takes.
"""


@dataclass(frozen=True)
class Mosaic:
    """``count`` tiles of (rows, columns) pixels in ``down`` rows of ``across``, row by row; the rest is empty."""

    count: int
    down: int
    across: int
    rows: int
    columns: int

    def split(self, sheet: NDArray[Any]) -> NDArray[Any]:
        """The tiles (count, rows, columns) of a sheet."""
        tiles = sheet.reshape(self.down, self.rows, self.across, self.columns).swapaxes(1, 2)
        return tiles.reshape(-1, self.rows, self.columns)[: self.count]

    def join(self, tiles: NDArray[Any], empty: Any) -> NDArray[Any]:
        """The sheet of all tiles, with the value ``empty`` where there is none."""
        full = np.full((self.down * self.across, self.rows, self.columns), empty, tiles.dtype)
        full[: self.count] = tiles
        sheet = full.reshape(self.down, self.across, self.rows, self.columns).swapaxes(1, 2)
        return sheet.reshape(self.down * self.rows, self.across * self.columns)


def says_mosaic(dataset: Dataset) -> bool:
    """Whether ImageType calls a classic image a mosaic; enhanced ones (XA) say so of planes that are none."""
    return "MOSAIC" in texts(dataset, "ImageType")[2:] and "SharedFunctionalGroupsSequence" not in dataset


def says_grid(dataset: Dataset) -> bool:
    """Whether ImageType calls a classic image a grid of slices, as UIH does."""
    return "VFRAME" in texts(dataset, "ImageType") and "SharedFunctionalGroupsSequence" not in dataset


def mosaic_of(dataset: Dataset) -> Mosaic | None:
    """The layout of a mosaic or a grid whose private elements say how many slices it has, else None."""
    grid = says_grid(dataset)
    if not (grid or says_mosaic(dataset)) or whole(dataset, "NumberOfFrames", 1) > 1:
        return None
    stated: Any
    if grid:
        stated = _grid_element(dataset, _GRID_COUNT)
    else:
        stated = private_value(dataset, 0x0019, "SIEMENS MR HEADER", 0x0A)
        stated = stated or _csa(dataset).get("NumberOfImagesInMosaic")
    try:
        count = int(stated[0] if isinstance(stated, list) else stated)
    except (TypeError, ValueError, IndexError):
        return None
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    across = math.isqrt(max(count, 1) - 1) + 1
    down = -(-count // across) if grid else across
    if count < 2 or rows % down or columns % across:
        return None
    return Mosaic(count, down, across, rows // down, columns // across)


def plane_size(dataset: Dataset) -> tuple[int, int]:
    """Rows and columns of a slice: those of the image, or of a mosaic's tiles."""
    mosaic = mosaic_of(dataset)
    return (whole(dataset, "Rows"), whole(dataset, "Columns")) if mosaic is None else (mosaic.rows, mosaic.columns)


def tile_positions(
    dataset: Dataset, mosaic: Mosaic, orientation: NDArray[Any], spacing: tuple[float, float]
) -> NDArray[Any] | None:
    """Positions (count, 3) of the tiles, LPS mm, as ImagePositionPatient would give them; None where it is missing.

    A grid holds that of each tile. That of a mosaic is of a plane as large as the sheet around the first slice's
    centre; its slices follow each other along the normal of the CSA header, else along that of the plane,
    SpacingBetweenSlices (or, where it is missing, SliceThickness) apart.
    """
    if says_grid(dataset):
        tiles = _grid_element(dataset, _GRID_TILES)
        found = [numbers(tile, "ImagePositionPatient", 3) for tile in tiles] if isinstance(tiles, Sequence) else []
        placed = [position for position in found if position is not None]
        return np.array(placed) if len(placed) == mosaic.count else None
    corner = numbers(dataset, "ImagePositionPatient", 3)
    step = number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness")
    if corner is None or not step:
        return None
    across, down = orientation[:3] * spacing[1], orientation[3:] * spacing[0]
    margin = (mosaic.across - 1) / 2
    first = corner + margin * (mosaic.columns * across + mosaic.rows * down)
    normal = np.cross(orientation[:3], orientation[3:])
    stated = np.array(_csa(dataset).get("SliceNormalVector") or [], dtype=float)
    if stated.shape == (3,) and stated @ normal < 0:
        normal = -normal
    return first + np.arange(mosaic.count)[:, None] * step * normal


def _grid_element(dataset: Dataset, tag: int) -> Any:
    try:
        return dataset[tag].value if tag in dataset else None
    except Exception:
        return None


def _csa(dataset: Dataset) -> dict[str, list[Any]]:
    """Name -> values of Siemens' CSA image header, empty where there is none or it is damaged."""
    try:
        with quiet():  # the import warns
            from nibabel.nicom import csareader
        header = csareader.get_csa_header(dataset, "image")
        return {} if header is None else {name: tag["items"] for name, tag in header["tags"].items()}
    except Exception:
        return {}
