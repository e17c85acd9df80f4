"""What a trained model's file says of it beside weights and configuration. No patient data: patients are hashes."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from cdm4mi.config.portable import portable
from cdm4mi.config.schema import Config
from cdm4mi.records import FileRecord, Record


class TrainingData(Record):
    """Whom a model was trained on.

    Patients as ``data.names.patient_hash`` makes them; slice_hashes: the first eight bytes of the hash of each slice of
    training and validation, in hex.
    """

    patients_train: list[str] = Field(default_factory=list)
    patients_val: list[str] = Field(default_factory=list)
    slices_train: int = 0
    slices_val: int = 0
    slice_hashes: list[str] = Field(default_factory=list)

    def after(self, earlier: TrainingData) -> TrainingData:
        """Whom weights have seen that were trained on ``earlier`` before; the counts of slices stay."""
        train = set(earlier.patients_train) | set(self.patients_train)
        val = set(self.patients_val) - train
        hashes = set(earlier.slice_hashes) | set(self.slice_hashes)
        return self.model_copy(
            update={"patients_train": sorted(train), "patients_val": sorted(val), "slice_hashes": sorted(hashes)}
        )


class KindCalibration(Record):
    """How the spread of samples becomes a standard deviation in one kind of noise (``inference.calibration``), and the
    coverage of the 90 % interval that was measured.

    smoothing in pixels, floor in noise levels; exponent: of the noise level; bootstrap_power: of the scan's bootstrap
    ratio, 0 where intervals do without it. measured_on: validation patients, or slices that the training left out of
    the patients that it read.
    """

    scale: float
    coverage: float
    smoothing: float
    floor: float
    exponent: float = 0.0
    bootstrap_power: float = 0.0
    measured_on: Literal["validation patients", "unread slices of training patients"] = "validation patients"


class ScanBound(Record):
    """Half widths in calibrated standard deviations that hold for 1 - alpha of scans (``inference.conformal``).

    half_width: at least 90 % of a scan's voxels lie within it of the mean; region_half_width: and at least 90 % of the
    voxels of each region at once; both None where there were fewer scans than scans_needed. scans: how many patients
    of the modality it was fitted on; kinds: of noise that their images had; regions: those that were large enough in
    one scan or more.
    """

    scans: int
    scans_needed: int
    alpha: float
    half_width: float | None = None
    region_half_width: float | None = None
    kinds: list[str] = Field(default_factory=list)
    regions: list[str] = Field(default_factory=list)


class Calibration(Record):
    """What was fitted for the spread of samples to become a standard deviation (``inference.calibration``).

    kinds: for each kind of noise that was seen often enough, by its name (``inference.calibration.noise_kind``);
    settings: the sampling that it is for; the coverages of the 90 % interval that were measured; scan_bounds: by
    modality.
    """

    settings: dict[str, Any]
    coverage_before: float
    coverage_after: float
    kinds: dict[str, KindCalibration] = Field(default_factory=dict)
    scan_bounds: dict[str, ScanBound] = Field(default_factory=dict)


class StepsStudy(Record):
    """By which rule the steps were chosen, on which noise levels on [-1, 1], and the quality that they have."""

    rule: str
    psnr: float
    ssim: float
    spectrum_error: float
    levels: tuple[float, float]


class LesionPoint(Record):
    """What the model kept of one kind of lesion (``lesions.record``), the mean over sites and draws of noise.

    sigma: noise of the input, and contrast, in the scan's units; size: diameter in pixels. kept: share of the contrast.
    d, auc: of an observer of the restored images; ideal_d: of the best of all observers of the input.
    """

    noise: str
    sigma: float
    size: float
    size_mm: float
    contrast: float
    kept: float
    d: float | None = None
    auc: float | None = None
    ideal_d: float | None = None


class LesionCurve(Record):
    """What a lesion test found of the model; in_percent: contrasts and sigma are of the intensity window's width."""

    modality: str
    unit: str
    in_percent: bool
    shape: Literal["disc", "sphere"]
    sites: int
    points: list[LesionPoint]

    def at(self, sigma: float) -> list[LesionPoint]:
        """The points of the measured noise level that is nearest in ratio."""
        nearest = min((point.sigma for point in self.points), key=lambda s: abs(math.log(s / sigma)))
        return [point for point in self.points if point.sigma == nearest]


class About(FileRecord):
    """What is known of a model.

    version: of the program that trained it. step: of the training.
    initial_weights: hash of those that the training began with, of another model; distilled_from: of the teacher's.
    layout: whose file it is, where it is not this project's. card: the
    model card.
    """

    version: str | None = None
    data: TrainingData = TrainingData()
    step: int | None = None
    calibration: Calibration | None = None
    steps_study: StepsStudy | None = None
    lesions: LesionCurve | None = None
    initial_weights: str | None = None
    distilled_from: str | None = None
    teacher_steps: int | None = None
    layout: str | None = None
    card: str = ""


def checkpoint_section(config: Config, about: About, regression: Config | None) -> dict[str, Any]:
    """What a checkpoint holds under ``cdm4mi``, as plain data; regression: of the model that it rests on."""
    nested = {} if regression is None else {"regression": portable(regression)}
    return {"config": portable(config), **about.plain(), **nested}
