"""A patient as training sees one: slices on [-1, 1], in memory or read from a store as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from cdm4mi.data.acquisition import UNKNOWN_SPACING, Spacing
from cdm4mi.degradation.base import Frame


class Plane(Protocol):
    """One slice (rows, columns): an array, or one that reads from its file only what is asked of it.

    Of a colour image (channels, rows, columns).
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, place: Any, /) -> NDArray[Any]: ...


@dataclass
class Patient:
    """The clean slices of one patient on [-1, 1], and the foreground of each (bool).

    ``source`` groups patients of one scanner protocol ("CT-...", "MR-..."); training balances sources. ``spacing``
    is in millimetres along (slices, rows, columns). ``frames`` says for each slice what [-1, 1] means in it; None where
    that is not known. ``conditions`` holds the real noisy version of each slice, as the slices; None where the noise
    is simulated. ``neighbours`` holds for each slice those above and below it (2.5-D), clean where the noise is
    simulated, else the real noisy ones; the same object where one is repeated. ``contrasts`` holds for each slice those
    of other scans of the patient at its place. ``split`` ("train", "val", "test") is set where a manifest says it.
    ``hashes`` (``store.slice_hash``) are those of the whole slices in physical units, where there are such: a model's
    record keeps them, so that a test patient is known again under another name.
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
        """What [-1, 1] means in slice k; where that is not known, what is usual for the modality of the source."""
        if self.frames is not None:
            return self.frames[k]
        modality = self.source.split("-")[0]
        low, high = (-1000.0, 1000.0) if modality == "CT" else (0.0, 1.0)
        return Frame(low, high, modality if modality in ("CT", "MR", "PT") else None, self.spacing[1:])
