"""The methods of a study behind one contract: what decides their output, and restoring one noisy scan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from cdm4mi.config.schema import Config, SamplingConfig
from cdm4mi.degradation import Degradation
from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.evaluation.benchmark.noising import NoisyScan
from cdm4mi.evaluation.benchmark.record import MethodRecord
from cdm4mi.files import replacing_file
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.measure.noise_level import NONE, estimate_noise
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.window import IntensityWindow

log = logging.getLogger("cdm4mi.evaluation")


@dataclass
class Restored:
    """array, sd: (N, rows, columns) in physical units, the second the method's own standard deviation or None.

    calls: of a network for each pixel. seconds: of one slice; processor time on a CPU, which other work beside it does
    not lengthen, and wall clock on a GPU. notes: what the method has to say.
    """

    array: NDArray[Any]
    seconds: float
    calls: int = 0
    sd: NDArray[Any] | None = None
    notes: list[str] = field(default_factory=list)


class StudyMethod(ABC):
    """title: in tables."""

    title: str

    def prepare(self, noise: Degradation, pairs: Pairs) -> None:  # noqa: B027
        """Whatever has to be known for this noise level, before its scans."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """What decides the output at the level that was prepared, as JSON values."""

    @abstractmethod
    def restore(self, noisy: NoisyScan, level_given: bool, seed: int, batch: int) -> Restored:
        """The restored scan. level_given: the noise level is given, else it is measured."""

    def facts(self) -> MethodRecord:
        """What a report says of it."""
        return MethodRecord(title=self.title)

    def inside_training(self, noisy: NoisyScan) -> bool | None:
        """Whether the level is one that it was trained for; None for what is not trained."""
        return None


@dataclass(frozen=True)
class Pairs:
    """Validation images at one noise level, in which baselines are tuned; key: what decides them."""

    noisy: list[NoisyScan]
    key: str

    def images(self) -> list[tuple[NDArray[Any], NDArray[Any], float]]:
        """(noisy, reference, sigma) on [-1, 1], a slice each."""
        return [
            (scan.scan.norm.normalised(y), scan.scan.norm.normalised(x0).clip(-1, 1), sigma)
            for scan in self.noisy
            for y, x0, sigma in zip(scan.array, scan.scan.target, scan.sigma, strict=True)
        ]


class Noisy(StudyMethod):
    """The noisy input."""

    def __init__(self, title: str) -> None:
        self.title = title

    def key(self) -> dict[str, Any]:
        return {"type": "noisy"}

    def restore(self, noisy: NoisyScan, level_given: bool, seed: int, batch: int) -> Restored:
        return Restored(noisy.array, 0.0)


class Classical(StudyMethod):
    """A baseline, tuned for each noise level by ``Baseline.tuned``; what was found is kept in ``folder``."""

    def __init__(self, title: str, type: str, folder: Path) -> None:
        self.title, self.type, self.folder = title, type, folder
        self.baseline = BASELINES[type]
        self.baseline.require()
        self.settings: dict[str, Any] = {}
        self.tuned: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def prepare(self, noise: Degradation, pairs: Pairs) -> None:
        if not pairs.noisy:
            raise UserError(
                f"methods: {self.type} is tuned on validation patients, found none; expected data.val_patients "
                "(a store: a split with val)"
            )
        tried = hashlib.sha256(repr(self.baseline.grid).encode()).hexdigest()[:8]
        file = self.folder / f"{self.type}-{pairs.key}-{tried}.json"
        best = self._kept(file)
        if best is None:
            best = dataclasses.asdict(self.baseline.tuned(pairs.images()))
            with replacing_file(file) as temporary:
                temporary.write_text(json.dumps(best))
        self.settings = best
        self.tuned[noise.described()] = self.settings
        self.notes = list(at_an_end(self.settings, self.baseline.grid))

    def _kept(self, file: Path) -> dict[str, Any] | None:
        """The settings that an earlier run found; None where there are none, or the file is damaged."""
        if not file.exists():
            return None
        try:
            return dataclasses.asdict(TypeAdapter(type(self.baseline.default)).validate_json(file.read_bytes()))
        except (OSError, ValueError):
            log.warning("%s: damaged, so %s is tuned anew", file, self.type)
            return None

    def key(self) -> dict[str, Any]:
        return {"type": self.type, "settings": self.settings}

    def restore(self, noisy: NoisyScan, level_given: bool, seed: int, batch: int) -> Restored:
        norm = noisy.scan.norm
        images = norm.normalised(noisy.array)
        measured = NONE if level_given else estimate_noise(noisy.array)
        sigmas = noisy.sigma if level_given else (measured.of_slices(len(images)) * norm.scale).tolist()
        settings = type(self.baseline.default)(**self.settings)
        began = time.process_time()
        out = np.stack([self.baseline(y, sigma, settings) for y, sigma in zip(images, sigmas, strict=True)])
        return Restored(norm.physical(out), (time.process_time() - began) / len(images), notes=self.notes)

    def facts(self) -> MethodRecord:
        return MethodRecord(title=self.title, tuned=self.tuned, tried=len(self.baseline.grid))


def at_an_end(settings: Mapping[str, Any], grid: Sequence[Any]) -> Iterator[str]:
    """A word on each strength that the search found at an end of its grid: the best may lie beyond."""
    for name in ("factor", "width"):
        values = {getattr(point, name) for point in grid if hasattr(point, name)}
        if values and settings[name] in (min(values), max(values)):
            yield f"tuned {name} {settings[name]:g} is at an end of its grid, {min(values):g} to {max(values):g}"


def anonymous_training(config: Config) -> dict[str, Any]:
    """What a model was trained by, without paths and without names of patients."""
    public = config.model_dump(mode="json", include={"seed", "model", "data", "training"})
    public["data"] |= {"paths": len(config.data.paths)}
    for key in ("val_patients", "exclude_patients"):
        public["data"][key] = len(public["data"][key] or [])
    if config.model.regression is not None:
        public["model"]["regression"] = Path(config.model.regression).name
    return public


class Model(StudyMethod):
    """A trained model, sampled in one way."""

    def __init__(self, title: str, model: TrainedModel, sampling: dict[str, Any], trained_by_study: bool) -> None:
        self.title, self.model, self.trained_by_study = title, model, trained_by_study
        self.hash = model.weight_hash
        self.sampling: SamplingConfig = changed(model.config.sampling, **{"planes": 1} | sampling)
        if self.sampling.planes != 1:
            expected = "1: the slices of a study need not be neighbours"
            raise UserError(f"method {title}: sampling.planes: found {self.sampling.planes}, expected {expected}")
        self.restorer = Restorer(model, self.sampling)

    def key(self) -> dict[str, Any]:
        process = self.model.config.model.model_dump(mode="json", exclude={"regression"})
        return {"type": "model", "weights": self.hash, "model": process, "sampling": self.sampling.model_dump()}

    def restore(self, noisy: NoisyScan, level_given: bool, seed: int, batch: int) -> Restored:
        norm, data = noisy.scan.norm, self.model.config.data
        if norm.modality == "CT":
            norm = IntensityWindow(data.window[0], data.window[1], "CT")
        level = noisy.level * (noisy.scan.norm.high - noisy.scan.norm.low) / 2 if level_given else None
        clock = time.perf_counter if self.restorer.slices.device.type == "cuda" else time.process_time
        began = clock()
        result = self.restorer.restore(
            noisy.scan.volume(noisy.array), noise=level, seed=seed, batch=batch, normalisation=norm
        )
        seconds = (clock() - began) / len(noisy.array)
        spread = None if result.spread is None else result.spread.array
        notes = [note for note in result.record.warnings if note not in self.model.notices]
        return Restored(result.volume.array, seconds, result.record.network_calls, spread, notes)

    def facts(self) -> MethodRecord:
        config, about = self.model.config, self.model.about
        return MethodRecord(
            title=self.title,
            family=self.hash[:12],
            weights=self.hash,
            trained_by_this_study=self.trained_by_study,
            parameters=sum(p.numel() for p in self.model.network.parameters()),
            training_steps=about.step,
            batch=config.training.batch_size * config.training.accumulate,
            noise_in_training=config.data.noise.described() if about.layout is None else "not stated",
            path=config.model.path,
            parameterization=config.model.parameterization,
            sampling=self.sampling.model_dump(mode="json"),
            configuration=anonymous_training(config),
        )

    def inside_training(self, noisy: NoisyScan) -> bool | None:
        trained = self.model.config.data.noise.sigma_range(noisy.scan.frame)
        if trained is None or self.model.about.layout is not None:
            return None
        return trained[0] * 0.99 <= noisy.level <= trained[1] * 1.01
