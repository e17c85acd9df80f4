"""The configuration of ``cdm4mi benchmark``: data, protocols, noise levels, methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from cdm4mi.config.errors import validated
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.config.yaml_text import read_file, shown
from cdm4mi.degradation import NoiseConfig
from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.section import Count, Section

Two = Annotated[list[float], Field(min_length=2, max_length=2)]


class ScansSection(Section):
    """The scans of the study, and which patients are for what."""

    kind: Literal["volumes", "store"] = Field("volumes", description="scans, or a store of cdm4mi prepare")
    paths: list[str] = Field(min_length=1, description="scans, folders or patterns; store: one")
    test_patients: list[str] | None = Field(
        None, description="volumes: by name; none: all but val_patients. A store has its own test set"
    )
    val_patients: list[str] = Field([], description="volumes: by name; baselines are tuned on them")
    window: Two = Field([-1000.0, 1000.0], description="CT: HU that map to -1 and +1, where the noise is stated")
    percentiles: Two = Field([0.0, 99.5], description="MR, PET: percentiles of the foreground that map to -1 and +1")
    slices: Count | None = Field(None, description="so many of each scan, spread evenly; none: all that show a body")
    crop: Count | None = Field(None, description="side of a square in the middle of the body, pixels; none: all")


class TuningSection(Section):
    """The validation images on which baselines are tuned."""

    slices: Count = Field(2, description="of each scan of a validation patient, spread evenly")
    crop: Count = Field(96, description="side of a square in the middle of the body, pixels")


class MethodSection(Section):
    """Base of the methods. name: in tables; none: the method's own."""

    type: str
    name: str | None = None

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.name or TITLES[self.type]


class NoisyMethod(MethodSection):
    """The noisy input as it is."""

    type: Literal["noisy"] = "noisy"


class ModelMethod(MethodSection):
    """A trained model, or one that the benchmark trains, with the way it is sampled."""

    type: Literal["model"] = "model"
    checkpoint: str | None = Field(None, description="a checkpoint or a run's folder; shipped: the package's own")
    config: str | None = Field(None, description="a configuration or preset, trained into the benchmark's folder")
    overrides: list[str] = Field([], description="key=value over the configuration")
    weights: Literal["best", "last"] = Field("best", description="config: by validation loss, or the last step's")
    sampling: SamplingConfig = Field(SamplingConfig(), description="what is set replaces the model's own")

    @model_validator(mode="after")
    def _one_source(self) -> ModelMethod:
        if not self.name:
            raise ValueError("name is missing, expected what tables shall call the model")
        if (self.checkpoint is None) == (self.config is None):
            found = "both" if self.checkpoint else "none"
            raise ValueError(f"found {found}, expected one of checkpoint and config")
        if self.overrides and self.config is None:
            raise ValueError("overrides is given without config, expected them together")
        return self

    @property
    def chosen_sampling(self) -> dict[str, Any]:
        """What the configuration sets of the sampling."""
        return self.sampling.model_dump(exclude_unset=True)


TITLES = {"noisy": "noisy input", **{name: baseline.title for name, baseline in BASELINES.items()}}


def _baseline(name: str) -> type[MethodSection]:
    """The section of a baseline, which is tuned for each noise level and has no keys of its own."""
    kind: Any = Literal[name]
    return create_model(f"{name}Method", __base__=MethodSection, type=(kind, name))


if TYPE_CHECKING:
    Method = MethodSection
else:
    _METHODS = {"noisy": NoisyMethod, **{name: _baseline(name) for name in BASELINES}, "model": ModelMethod}
    Method = Annotated[
        Union[tuple(Annotated[section, Tag(name)] for name, section in _METHODS.items())],  # noqa: UP007
        Discriminator(lambda v: v.get("type") if isinstance(v, dict) else getattr(v, "type", None)),
    ]


class BenchmarkConfig(Section):
    """A study: written whole beside its results."""

    name: str = "benchmark"
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides the noise of every slice and every sample")
    protocols: list[str] = Field(min_length=1, description="names or YAML files; the first one is plotted")
    data: ScansSection
    tuning: TuningSection = TuningSection()
    levels: list[NoiseConfig] = Field([], description="noise sections, each one level; none: the first protocol's")
    level: Literal["known", "measured"] = Field("known", description="what every method is told of the noise's level")
    methods: Annotated[list[Method], Field(min_length=1)]
    main: str | None = Field(None, description="the method that is tested against the others; none: the last one")
    batch: Count = Field(4, description="slices at a time")

    @model_validator(mode="after")
    def _consistent(self) -> BenchmarkConfig:
        titles = [method.title for method in self.methods]
        doubled = [title for title in titles if titles.count(title) > 1]
        if doubled:
            raise ValueError(f"methods: found {doubled[0]!r} twice, expected a name of its own for each")
        if self.main is not None and self.main not in titles:
            raise ValueError(f"main: found {self.main!r}, expected one of: {', '.join(titles)}")
        shared = set(self.data.test_patients or []) & set(self.data.val_patients)
        if shared:
            raise ValueError(f"data: found {min(shared)!r} in test_patients and in val_patients, expected one of them")
        return self

    @property
    def main_title(self) -> str:
        """The method that is tested against the others."""
        return self.main or self.methods[-1].title


def load_benchmark(path: str | os.PathLike[str]) -> BenchmarkConfig:
    """The validated configuration of a YAML file. Raises UserError: one line with file, field, found, expected."""
    return parse_benchmark(read_file(Path(path)), os.fspath(path))


def parse_benchmark(mapping: Any, where: str = "configuration") -> BenchmarkConfig:
    """The configuration that a mapping holds."""
    return validated(mapping, where, BenchmarkConfig)


def refuse_ranges(levels: Sequence[NoiseConfig]) -> None:
    """Refuse a level that is a range: each has to be one condition."""
    for level in levels:
        for key, value in level:
            if isinstance(value, list) and key != "parts":
                raise UserError(f"levels: {level.type}.{key}: found the range {shown(value)}, expected one number")
