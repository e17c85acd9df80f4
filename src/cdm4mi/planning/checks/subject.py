"""The subject of the checks (a configuration with its patients and pairs), and their findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cdm4mi.config.schema import Config
from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.names import pseudonym
from cdm4mi.data.pairs import Pair, PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.data.records import Manifest
from cdm4mi.data.sources import load_patients
from cdm4mi.data.stored import stored_patients
from cdm4mi.models import check_sizes
from cdm4mi.training.run import PairData

Grade = Literal["ok", "note", "wrong"]
CHECKED_SLICES = 24
"""Whole slices of each source that are checked."""
PAIRS = 64


@dataclass(frozen=True)
class Finding:
    """The result of one check: how serious it is, what was found and, where something is wrong, a line of advice."""

    name: str
    grade: Grade
    message: str
    advice: str = ""


@dataclass
class Subject:
    """A configuration with its patients by split and some of its training pairs.

    Test patients are included where the configuration names them.
    """

    config: Config
    train: list[Patient]
    val: list[Patient]
    test: list[Patient]
    dataset: PairDataset
    pairs: list[Pair]
    manifest: Manifest | None = None
    folder: Path | None = None

    @property
    def every(self) -> list[Patient]:
        return [*self.train, *self.val]

    @property
    def real(self) -> bool:
        """Whether the noise is that of real noisy scans."""
        return any(patient.conditions is not None for patient in self.every)

    @property
    def validates_on_training(self) -> bool:
        return {p.name for p in self.train} == {p.name for p in self.val}

    def called(self, patient: str) -> str:
        """The name of a patient in messages: a hash, as in a store."""
        return patient if self.manifest is not None else pseudonym(patient)

    def some_slices(self, count: int = CHECKED_SLICES) -> Iterator[tuple[Patient, int]]:
        """Slices of training and validation, ``count`` of each source, evenly spread."""
        for source in sorted({patient.source for patient in self.every}):
            images = [(p, k) for p in self.every if p.source == source for k in range(len(p.slices))]
            yield from spread_out(images, count)


def load_subject(config: Config) -> Subject:
    """Read the data as training reads them. Raises UserError where training would."""
    check_sizes(config.model)
    data = PairData(config)
    train, val = (
        [patient for source in pairs.sources for patient in source] for pairs in (data.train_pairs, data.val_pairs)
    )
    pairs = [data.train_pairs[i] for i in range(PAIRS)]
    subject = Subject(config, train, val, [], data.train_pairs, pairs)
    if config.data.kind == "store":
        subject.folder, subject.manifest = read_manifest(Path(config.data.paths[0]))
        if subject.real:
            subject.test = stored_patients(config.data, ("test",))
    elif config.data.exclude_patients:
        whole = config.data.model_copy(update={"exclude_patients": []})
        chosen = set(config.data.exclude_patients)
        every = load_patients(whole, config.model.image_size, config.seed)
        subject.test = [patient for patient in every if patient.name in chosen]
    return subject


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the items, evenly spread, in their order; all of them where there are fewer."""
    if not items:
        return []
    positions = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in np.unique(positions)]
