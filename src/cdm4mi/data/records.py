"""Records of a store: of one scan, and the manifest of all. They hold no patient data."""

from __future__ import annotations

from typing import Literal

from cdm4mi.data.names import Split
from cdm4mi.records import FileRecord, Record
from cdm4mi.window import IntensityWindow

FORMAT = 1
"""Version of the format: raised when earlier stores must be prepared again."""


class Alignment(Record):
    """Shift of noisy slices against clean ones, in voxels along (slices, rows, columns), and their correlation.

    ``correlation`` is the mean over slices of Pearson's, with the noisy slices moved back by whole voxels.
    """

    shift: tuple[float, float, float]
    correlation: float

    @property
    def away(self) -> float:
        """The largest shift along an axis, voxels."""
        return max(abs(step) for step in self.shift)


class StoredValues(Record):
    """How a file stores physical values: value = scale stored + offset; error: the largest, in physical units."""

    dtype: str
    scale: float
    offset: float
    error: float


class ScanContent(Record):
    """Description of a scan, or of a real pair.

    source: modality and slice size, by which scans are grouped. source_type: of the numbers in
    the file that was read. shape: of the scan. index: which of its slices are stored, time points one after another.
    normalisation: the window of MR and PET, where CT has the configuration's. foreground_above: physical units.
    """

    source: str
    modality: str
    units: str | None
    format: str
    source_type: str | None
    shape: list[int]
    slices: int
    index: list[int]
    spacing_mm: tuple[float, float, float]
    affine_ras: list[list[float]]
    normalisation: IntensityWindow
    foreground_above: float
    foreground_fraction: float
    warnings: list[str]
    pair: Alignment | None = None


class ScanRecord(ScanContent):
    """A scan's file in a store. sha256: over the hashes of its slices; stored: "target" and, of a pair, "condition"."""

    file: str
    sha256: str
    stored: dict[str, StoredValues]


class ManifestScan(ScanRecord):
    """A scan as the manifest lists it; doubled: which of its stored slices an earlier scan has already."""

    patient: str
    split: Split
    doubled: list[int]


class DrawnSplit(Record):
    """Shares of the patients, and the seed of the draw."""

    val_fraction: float
    test_fraction: float
    seed: int


class StoreSettings(Record):
    """What decides the content of a store besides the scans. split: "given" for one that the user states."""

    window_hu: tuple[float, float]
    percentiles: tuple[float, float]
    least_foreground: float
    split: DrawnSplit | Literal["given"]


class ManifestContent(FileRecord):
    """The part of a manifest that its hash covers. A scan that is no pair has no key ``pair``."""

    settings: StoreSettings
    licence: str
    patients: dict[Split, int]
    slices: int
    scans: list[ManifestScan]


class Manifest(ManifestContent):
    """The manifest of a store; version: of the program that wrote it; sha256: of the rest."""

    software: Literal["cdm4mi"]
    version: str
    sha256: str
