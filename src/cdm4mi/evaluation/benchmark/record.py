"""The record of a finished study as it lies on disk: study.json, the scores beside it, and a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, Field, model_validator

from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import ProtocolRecord
from cdm4mi.evaluation.statistics import Mean, Number
from cdm4mi.evaluation.study import Study
from cdm4mi.records import read_record_as

RECORD, IMAGES, SCORES = "study.json", "images.npz", "scores"
FORMAT = 2


class ScanRecord(BaseModel):
    """A scan. slices: their numbers. window: physical values of -1 and 1. pixels_sha256: over all that was judged."""

    name: str
    patient: str
    slices: list[int]
    shape: list[int]
    spacing_mm: list[float]
    modality: str
    window: tuple[float, float]
    pixels_sha256: str


class MethodRecord(BaseModel):
    """A method; what it is not is None.

    family: what methods share that differ only in how they are sampled. tuned: settings by noise level, the best of
    ``tried``. weights: their hash. batch: images a training step.
    """

    title: str
    family: str = ""
    tuned: dict[str, dict[str, Any]] | None = None
    tried: int | None = None
    weights: str | None = None
    trained_by_this_study: bool | None = None
    parameters: int | None = None
    training_steps: int | None = None
    batch: int | None = None
    noise_in_training: str | None = None
    path: str | None = None
    parameterization: str | None = None
    sampling: dict[str, Any] | None = None
    configuration: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _format_1(cls, values: Any) -> Any:
        """Keys had spaces."""
        return {k.replace(" ", "_"): v for k, v in values.items()} if isinstance(values, dict) else values

    @property
    def untouched(self) -> bool:
        """Whether it leaves the noisy input as it is."""
        return not self.family and self.tuned is None


class LevelRecord(BaseModel):
    """A noise level. short: what a column calls it. sigma: root mean square, on [-1, 1].

    scores: files by protocol label. inside_training, seconds (a slice), calls (of a network), notes, spectra: by
    method.
    """

    noise: dict[str, Any]
    described: str
    short: str
    sigma: float
    scores: dict[str, str]
    inside_training: dict[str, bool | None]
    seconds: dict[str, float]
    calls: dict[str, int]
    notes: dict[str, list[str]]
    spectra: dict[str, list[float]]


class Panel(BaseModel):
    """A slice at a noise level, restored by every method. why: in words. scores: PSNR by method, in dB.

    level, scan, k: numbers in the study's lists. window: physical units, black and white of the picture.
    """

    why: str
    level: int
    scan: int
    k: int
    patient: str
    slice: int
    window: tuple[float, float]
    unit: str
    scores: dict[str, Number]


class StudyRecord(BaseModel):
    """study.json. leakage: by method, what the check could look at. frequencies: of all spectra, cycles a pixel."""

    format: int = Field(ge=1, le=FORMAT)
    name: str
    main: str
    split: str
    patients: list[str]
    tuning_patients: list[str]
    scans: list[ScanRecord]
    protocols: list[ProtocolRecord]
    methods: list[MethodRecord]
    leakage: dict[str, str]
    frequencies: list[float]
    reference_spectrum: list[float]
    levels: list[LevelRecord]
    panels: list[Panel]
    config: dict[str, Any]
    provenance: dict[str, Any]


Model = TypeVar("Model", StudyRecord, Study)


class Record:
    """A finished study: study.json, the scores of each level by protocol label, and the images of ``images_of``.

    Raises UserError for a folder that holds no finished study.
    """

    def __init__(self, run: Path) -> None:
        try:
            self.study = _read(run / RECORD, StudyRecord)
            self.scores = [
                {label: _read(run / SCORES / Path(file).name, Study) for label, file in level.scores.items()}
                for level in self.study.levels
            ]
            with np.load(run / IMAGES, allow_pickle=False) as kept:
                self.images = {name: kept[name].astype(np.float32) for name in kept}
        except (OSError, ValueError) as error:
            name = Path(error.filename).name if isinstance(error, OSError) and error.filename else IMAGES
            raise UserError(
                f"{run}: holds no finished study ({name} is missing or damaged), expected the folder of cdm4mi "
                "benchmark or sweep"
            ) from None

    @property
    def methods(self) -> list[str]:
        return [method.title for method in self.study.methods]

    @property
    def levels(self) -> list[LevelRecord]:
        return self.study.levels

    @property
    def plotted(self) -> tuple[ProtocolRecord, str]:
        """The first protocol, and its first region: what curves and the summary show."""
        return self.study.protocols[0], self.study.protocols[0].regions[0]

    def means(self, level: int, metric: str) -> dict[str, Mean]:
        """The means of a metric by method, as figures show them."""
        protocol, region = self.plotted
        return {m: self.scores[level][protocol.label].mean(m, region, metric) for m in self.methods}


def _read(path: Path, model: type[Model]) -> Model:
    """A file of a study. Raises UserError where it is damaged, or of a later format."""
    return read_record_as(model, path.read_bytes(), str(path), f"a study of format 1 to {FORMAT}")
