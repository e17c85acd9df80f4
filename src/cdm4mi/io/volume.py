"""``Volume``: a scan as an array in physical units, with its position in the patient and its headers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import contiguous
from cdm4mi.io.derivation import Derivation


@dataclass
class Source:
    """Where a volume came from, with whatever its format needs to be written back. Only ``io`` looks into it.

    kind: "dicom" or the name of a format; paths: the files; header: what the format's writer takes back from it;
    dtype, slope, intercept: how values were stored, physical = slope * stored + intercept; folder: whether the scan was
    a folder of files, and is written as one where the output has no ending; slice_axis: of the stored axes (slices,
    rows, columns) the one along which the slices were acquired, which the volume has first; nan_padding: whether the
    padding of the volume is NaN in the file, and is NaN again where it is written as floats.
    """

    kind: str
    paths: tuple[Path, ...] = ()
    header: Any = None
    dtype: np.dtype[Any] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    folder: bool = False
    slice_axis: int = 0
    nan_padding: bool = False


@dataclass
class Volume:
    """One scan.

    ``array`` is float32 in physical units (HU for CT, Bq/ml or what the header says for PET, scanner units for MR) of
    shape (slices, rows, columns), (1, rows, columns) for a single image, or (time, slices, rows, columns). The slices
    are the planes that were acquired, along whichever axis the file stores them. A colour image is (slices, rows,
    columns, 3), red, green and blue, with ``channel_axis`` -1 as in scikit-image. ``affine``
    (4 x 4, float64) maps the voxel index (column i, row j, slice k) to RAS millimetres. ``padding`` marks pixels that
    the scanner filled in because nothing was measured there (same shape as ``array``), or is None. ``slice_origins``
    (slices, 3) holds the RAS position of pixel (0, 0) of each slice where no single affine is right (uneven spacing),
    else None. ``derivation`` says what was done to the values since they were read, for a DICOM output; None: nothing
    that is known. ``modality`` is what the header says, in DICOM's words. ``quantity`` is "" for the magnitudes that an
    image usually holds, else "phase", "field map" ...
    """

    array: NDArray[Any]
    affine: NDArray[Any]
    modality: str | None = None
    source: Source | None = None
    warnings: list[str] = field(default_factory=list)
    units: str | None = None
    padding: NDArray[Any] | None = None
    slice_origins: NDArray[Any] | None = None
    derivation: Derivation | None = None
    channel_axis: int | None = None
    quantity: str = ""

    def __post_init__(self) -> None:
        self.array = contiguous(self.array, np.float32)
        self.affine = np.asarray(self.affine, dtype=np.float64)
        if self.array.ndim not in (3, 4):
            raise ValueError(f"a volume has 3 or 4 axes, not {self.array.ndim}")
        if self.channel_axis is not None and (self.channel_axis != -1 or self.array.ndim != 4):
            raise ValueError(f"channel_axis {self.channel_axis} of {self.array.ndim} axes, expected -1 of 4")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is 4 x 4, not {self.affine.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def kind(self) -> str | None:
        """The format it was read from, "dicom" or a name of ``io.formats.FORMATS``; None for a new one."""
        return self.source.kind if self.source else None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbours along (slices, rows, columns); the mean between slices where it is uneven."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(k), float(j), float(i)

    def slice_affine(self, k: int) -> NDArray[Any]:
        """Affine (4 x 4, RAS mm) of slice ``k`` alone, also where spacing is uneven; (i, j, 0) is its pixel (j, i)."""
        affine = self.affine.copy()
        if self.slice_origins is not None:
            affine[:3, 3] = self.slice_origins[k]
        else:
            affine[:3, 3] += k * affine[:3, 2]
        return affine

    def slices(self) -> NDArray[Any]:
        """All slices of all time points as a view of shape (N, rows, columns), of colour (N, rows, columns, 3)."""
        return self.array if self.channel_axis is not None else self.array.reshape(-1, *self.array.shape[-2:])

    @property
    def times(self) -> int:
        """Time points: 1 unless the array is (time, slices, rows, columns)."""
        return self.array.shape[0] if self.array.ndim == 4 and self.channel_axis is None else 1

    @property
    def channels(self) -> int:
        """3 for colour, else 1."""
        return 1 if self.channel_axis is None else self.array.shape[-1]

    def images(self) -> NDArray[Any]:
        """All slices of all time points, channels in front, as a view of shape (N, channels, rows, columns)."""
        return self.slices()[:, None] if self.channel_axis is None else np.moveaxis(self.array, -1, 1)

    def arranged(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images (N, channels, rows, columns) as an array of this volume's shape: what ``images`` does, undone."""
        return images.reshape(self.shape) if self.channel_axis is None else np.moveaxis(images, 1, -1)

    def refuse_colour(self, name: str, expected: str = "a grey one") -> None:
        """UserError for a colour image, where only grey ones are understood."""
        if self.channel_axis is not None:
            raise UserError(f"{name}: is a colour image, expected {expected}")

    def with_array(
        self, array: NDArray[Any], warnings: list[str] | None = None, derivation: Derivation | None = None
    ) -> Volume:
        """The same scan with other values: ``array`` has the same shape; geometry, headers and warnings are kept.

        ``derivation``: how the values came about; the one of this volume does not hold for others.
        """
        if array.shape != self.array.shape:
            raise ValueError(f"new array has shape {array.shape}, the volume {self.array.shape}")
        return replace(self, array=array, warnings=self.warnings + (warnings or []), derivation=derivation)
