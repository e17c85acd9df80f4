"""A whole study: reads the scans, trains what is missing, fills every cell, and writes the tables and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from cdm4mi.degradation import Degradation
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.cell import Cell, cell_key, load_cell, make_cell, save_cell, without_neighbours
from cdm4mi.evaluation.benchmark.config import BenchmarkConfig, MethodSection, ModelMethod, NoisyMethod, refuse_ranges
from cdm4mi.evaluation.benchmark.methods import Classical, Model, Noisy, Pairs, StudyMethod
from cdm4mi.evaluation.benchmark.models import check_models, model_of
from cdm4mi.evaluation.benchmark.noising import NoisyScan, add_noise, level_key
from cdm4mi.evaluation.benchmark.results import write_results
from cdm4mi.evaluation.benchmark.scans import StudyScan, study_scans
from cdm4mi.evaluation.benchmark.study import Level, StudyRun
from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.locks import sole_run

CACHE, MODELS, TUNING = "cache", "models", "tuning"
"""Folders of a study; the first can be deleted when the study is finished."""
Progress = Callable[[str, int, int], None]


def run_benchmark(
    config: BenchmarkConfig,
    out: Path,
    progress: Progress = lambda what, done, total: None,
    command: str = "",
) -> StudyRun:
    """Run a study into the folder ``out``; what an earlier run of it has done is not done again.

    progress: called with what is done now, and how many cells of all are done. command: for the record.
    Raises UserError for what the user can mend, as where another process is at work in the folder; a test patient seen
    in training is refused before anything is restored.
    """
    with sole_run(out, "benchmark"):
        return _run(config, out, progress, command)


def _run(config: BenchmarkConfig, out: Path, progress: Progress, command: str) -> StudyRun:
    spread = config.data.slices is not None
    protocols = [without_neighbours(load_protocol(name), spread) for name in config.protocols]
    levels: Sequence[Degradation] = config.levels or protocols[0].noise
    if not levels:
        raise UserError(f"levels: found none, and the protocol {protocols[0].name} has none of its own; expected some")
    refuse_ranges(config.levels)
    scans = study_scans(
        config.data, "test", protocols, config.data.slices, config.data.crop, lambda what: progress(what, 0, 0)
    )
    if not scans:
        raise UserError("data: found no test patient, expected at least one")
    tuning: list[StudyScan] = []
    if any(not isinstance(method, NoisyMethod | ModelMethod) for method in config.methods):
        tuning = study_scans(
            config.data, "val", [], config.tuning.slices, config.tuning.crop, lambda what: progress(what, 0, 0)
        )
        refuse_shared(scans, tuning)
    check_models(config.methods, scans)
    methods = [method_of(method, out, scans, lambda what: progress(what, 0, 0)) for method in config.methods]
    study = StudyRun(config, protocols, scans, tuning, methods, [])
    done, total = 0, len(levels) * len(methods) * len(scans)
    for noise in levels:
        level = Level(noise)
        study.levels.append(level)
        noisy = [add_noise(scan, noise, config.seed) for scan in scans]
        level.sigma = [scan.level for scan in noisy]
        pairs = tuning_pairs(tuning, noise, config.seed)
        for method in methods:
            progress(f"{method.title}, {noise.described()}", done, total)
            method.prepare(noise, pairs)
            level.cells[method.title] = []
            for scan in noisy:
                level.cells[method.title].append(_cell(study, method, scan, noise, out / CACHE))
                done += 1
                progress(f"{method.title}, {noise.described()}", done, total)
            inside = [method.inside_training(scan) for scan in noisy]
            level.inside[method.title] = None if None in inside else all(inside)
    write_results(study, out, command)
    return study


def method_of(method: MethodSection, out: Path, scans: Sequence[StudyScan], say: Callable[[str], None]) -> StudyMethod:
    """The method of a section, trained where need be; ``say`` is told so."""
    if isinstance(method, ModelMethod):
        model = model_of(method, out / MODELS, scans, say)
        return Model(method.title, model, method.chosen_sampling, method.config is not None)
    if isinstance(method, NoisyMethod):
        return Noisy(method.title)
    return Classical(method.title, method.type, out / TUNING)


def refuse_shared(scans: Sequence[StudyScan], tuning: Sequence[StudyScan]) -> None:
    """Refuse a patient, or a slice, that is tested on and tuned on."""
    for test in scans:
        for val in tuning:
            if test.patient == val.patient or test.hashes & val.hashes:
                raise UserError(f"data: {test.patient} (test) and {val.patient} (validation) share slices or a name")


def tuning_pairs(tuning: Sequence[StudyScan], noise: Degradation, seed: int) -> Pairs:
    """The validation images with this noise; it is not the noise of any test slice."""
    content = "\n".join([level_key(noise), str(seed), *(scan.digest for scan in tuning)])
    return Pairs([add_noise(s, noise, seed) for s in tuning], hashlib.sha256(content.encode()).hexdigest()[:16])


def _cell(study: StudyRun, method: StudyMethod, noisy: NoisyScan, noise: Degradation, cache: Path) -> Cell:
    config = study.config
    given = config.level == "known"
    file = cache / f"{cell_key(method, noisy, noise, study.protocols, config.seed, given)}.npz"
    cell = load_cell(file, method.title, noisy)
    if cell is None:
        cell = make_cell(method, noisy, study.protocols, config.seed, given, config.batch)
        save_cell(file, cell)
    return cell
