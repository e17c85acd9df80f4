"""A patient for training: slices on [-1, 1], in memory or read from a store when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from cdm4mi.data.acquisition import UNKNOWN_SPACING, Spacing
from cdm4mi.degradation.base import Frame


class Plane(Protocol):
    """One slice (rows, columns), or of a colour image (channels, rows, columns).

    It is an array, or an object that reads the requested part from its file.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, crop: Any, /) -> NDArray[Any]: ...


@dataclass
class Patient:
    """The clean slices of one patient on [-1, 1], and the foreground of each (bool).

    source: group of patients with one scanner protocol ("CT-...", "MR-..."), by which training is balanced; spacing:
    millimetres along (slices, rows, columns); frames: the ``Frame`` of each slice (what [-1, 1] means in it), None
    where it is unknown; conditions: the real noisy version of each slice, None where noise is simulated; neighbours:
    for each slice those above and below it (2.5-D), clean where noise is simulated, else the real noisy ones, and the
    same object where one is repeated; contrasts: for each slice those of the patient's other scans there; split:
    "train", "val" or "test" where a manifest says it; hashes: ``store.slice_hash`` of the whole slices in physical
    units, where there are any: a model's record keeps them, so that a test patient is recognised under another name.
    """

    name: str
    source: str
    slices: list[Plane]
    foregrounds: list[Plane]
    spacing: Spacing = UNKNOWN_SPACING
    frames: list[Frame] | None = None
    conditions: list[Plane] | None = None
    split: str | None = None
    neighbours: list[list[Plane]] | None = None
    contrasts: list[list[Plane]] | None = None
    hashes: list[bytes] = field(default_factory=list)

    def frame(self, k: int) -> Frame:
        """The frame of slice k; where it is unknown, the usual one of the source's modality."""
        if self.frames is not None:
            return self.frames[k]
        modality = self.source.split("-")[0]
        low, high = (-1000.0, 1000.0) if modality == "CT" else (0.0, 1.0)
        return Frame(low, high, modality if modality in ("CT", "MR", "PT") else None, self.spacing[1:])
