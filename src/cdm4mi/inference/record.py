"""The record of a restoration: what ran, on what, with which result. No patient data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.io import InputRecord, OutputRecord
from cdm4mi.measure.noise_level import NoiseEstimate
from cdm4mi.records import Record
from cdm4mi.window import IntensityWindow


class NoiseLevel(Record):
    """Standard deviation of the scan's noise, in its units; used: what the model is given.

    estimated: whether the standard deviation was measured, not given. Where the noise was measured, for its level or
    for its texture, also: the correlations of neighbouring pixels (next row, next column), whether the scan is a
    magnitude image, and whether the level varies over the slice. least, most: over the slices, where each was restored
    with a level of its own; ``value`` and ``used`` then are root mean squares.
    """

    value: float
    estimated: bool
    used: float
    correlations: tuple[float, float] | None = None
    magnitude: bool | None = None
    varying: bool | None = None
    least: float | None = None
    most: float | None = None

    @classmethod
    def of(
        cls,
        value: float,
        used: float,
        measured: NoiseEstimate | None,
        by_slice: NDArray[np.float64],
        given: bool,
    ) -> NoiseLevel:
        """measured: what was found in the scan, where that was looked at; by_slice: of each slice; given: whether the
        value was given."""
        if measured is None:
            return cls(value=value, estimated=False, used=used)
        rows, columns = measured.correlations
        least, most = float(by_slice.min()), float(by_slice.max())
        return cls(
            value=value,
            estimated=not given,
            used=used,
            correlations=(round(rows, 3), round(columns, 3)),
            magnitude=measured.magnitude,
            varying=measured.varying,
            least=least if least < most else None,
            most=most if least < most else None,
        )


class Uncertainty(Record):
    """Of the map of the standard deviation: whether it is calibrated, for which kind of noise, and if not, why.

    interval: the share of voxels within the half width, in standard deviations; coverage: the share that was measured,
    and on whom; bootstrap: the scan's ratio (``calibration.bootstrap_ratio``), where the map follows from it. Where
    the model has a bound for scans of the modality: scan_share, of the scans that have that share of their voxels
    within scan_half_width_..., and of each region's voxels within region_half_width_...; scans: on how many it was
    fitted.
    """

    calibrated: bool
    why: str | None = None
    kind: str | None = None
    interval: float | None = None
    half_width_in_standard_deviations: float | None = None
    coverage: float | None = None
    measured_on: str | None = None
    bootstrap: float | None = None
    scan_share: float | None = None
    scan_half_width_in_standard_deviations: float | None = None
    region_half_width_in_standard_deviations: float | None = None
    scans: int | None = None


class KeptFrequencies(Record):
    """Frequencies of every slice up to which the scan's own were kept.

    put_back: root mean square over the scan, in its units, of what that changed: noise that came back, and errors of
    the model that went.
    """

    cycles_per_pixel: float
    put_back: float


class DenoiseRecord(OutputRecord):
    """How a scan was restored.

    model, weight_hash: which. settings: of the sampling. network_calls: a slice, in all planes. normalisation: the
    intensity window. kept_frequencies: what was kept of the scan as it is. above_window_fraction: of the voxels;
    left_as_found_fraction: those of padding and metal. seconds: of all slices.
    """

    model: str
    weight_hash: str
    settings: dict[str, Any]
    network_calls: int
    seed: int
    normalisation: IntensityWindow
    noise_level: NoiseLevel
    above_window_fraction: float
    left_as_found_fraction: float
    slices: int
    seconds: float
    device: str
    precision: str
    contrasts: list[InputRecord] | None = None
    uncertainty: Uncertainty | None = None
    kept_frequencies: KeptFrequencies | None = None

    def deidentified(self) -> DenoiseRecord:
        contrasts = self.contrasts and [contrast.without_hash() for contrast in self.contrasts]
        return super().deidentified().model_copy(update={"contrasts": contrasts})
