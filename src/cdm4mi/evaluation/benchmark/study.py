"""What a study has found so far: its scans and methods, and at every noise level the cells that are filled."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdm4mi.degradation import Degradation
from cdm4mi.evaluation.benchmark.cell import Cell
from cdm4mi.evaluation.benchmark.config import BenchmarkConfig
from cdm4mi.evaluation.benchmark.methods import StudyMethod
from cdm4mi.evaluation.benchmark.scans import StudyScan, split_hash
from cdm4mi.evaluation.protocol import Protocol


@dataclass
class Level:
    """All that was found at one noise level. cells: by method title, then in the order of the scans."""

    noise: Degradation
    sigma: list[float] = field(default_factory=list)
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    inside: dict[str, bool | None] = field(default_factory=dict)


@dataclass
class StudyRun:
    """A study as ``run_benchmark`` fills it and ``write_results`` takes it."""

    config: BenchmarkConfig
    protocols: list[Protocol]
    scans: list[StudyScan]
    tuning: list[StudyScan]
    methods: list[StudyMethod]
    levels: list[Level]

    @property
    def split(self) -> str:
        """Hash of what is judged and tuned on."""
        return split_hash(self.scans, self.tuning)
