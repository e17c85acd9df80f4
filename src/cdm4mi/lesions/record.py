"""The record of a lesion test: what every method kept of each lesion, and how well an observer sees it."""

from __future__ import annotations

from typing import Any, Literal

from cdm4mi.io.record import DatedRecord, InputRecord
from cdm4mi.lesions.observer import Detectability, Interval
from cdm4mi.models.about import LesionCurve, LesionPoint
from cdm4mi.records import Record


class Score(Record):
    """One method on one kind of lesion; intervals hold 95 %.

    kept: share of the contrast. visibility: contrast over the local spread. invented: blobs of at least half the
    contrast in 100 cm^2 of lesion-free flat tissue that the clean image does not show. d, auc: of the channelised
    Hotelling observer (``Detectability``). The last three are None without added noise.
    """

    kept: float
    kept_interval: Interval
    visibility: float
    invented: float | None = None
    d: float | None = None
    d_interval: Interval | None = None
    auc: float | None = None
    auc_interval: Interval | None = None

    @classmethod
    def of(
        cls, kept: float, interval: Interval, visibility: float, invented: float | None, seen: Detectability | None
    ) -> Score:
        about: dict[str, Any] = {} if seen is None else vars(seen)
        return cls(kept=kept, kept_interval=interval, visibility=visibility, invented=invented, **about)


class Cell(Record):
    """One kind of lesion in one noise: noise in words; sigma as it was measured in the input, in the scan's units.

    size: diameter in pixels; size_mm: the mean over the scans. ideal_d: d' of the prewhitening matched filter in the
    input, which no observer of any restoration exceeds; None without added noise. scores: by method.
    """

    noise: str
    sigma: float
    size: float
    size_mm: float
    contrast: float
    ideal_d: float | None
    scores: dict[str, Score]


class LesionTest(DatedRecord):
    """Lesions put into scans, restored, and looked for.

    model, weight_hash: of the method ``model_title``. unit: of contrasts and sigma;
    in_percent: it is a percent of the intensity window's width. sites: of lesions in all scans;
    repeats: draws of noise. shape: of the lesions. inputs: the scans.
    """

    model: str
    weight_hash: str
    model_title: str
    settings: dict[str, Any]
    modality: str
    unit: str
    in_percent: bool
    shape: Literal["disc", "sphere"]
    sites: int
    repeats: int
    seed: int
    inputs: list[InputRecord]
    cells: list[Cell]

    @property
    def methods(self) -> list[str]:
        return list(self.cells[0].scores)

    def curve(self) -> LesionCurve:
        """What of it is kept in the model's file."""
        points = []
        for cell in self.cells:
            score = cell.scores[self.model_title]
            known = {name: getattr(cell, name) for name in ("noise", "sigma", "size", "size_mm", "contrast", "ideal_d")}
            points.append(LesionPoint(**known, kept=score.kept, d=score.d, auc=score.auc))
        about = {name: getattr(self, name) for name in ("modality", "unit", "in_percent", "shape", "sites")}
        return LesionCurve(**about, points=points)
