"""The files of a finished study: scores of every slice and patient, the record that a report reads, a few images."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi import __version__
from cdm4mi.data.names import pseudonym
from cdm4mi.evaluation.aggregate import Row
from cdm4mi.evaluation.benchmark.cell import frequencies, radial_power
from cdm4mi.evaluation.benchmark.config import BenchmarkConfig, ModelMethod
from cdm4mi.evaluation.benchmark.methods import Model
from cdm4mi.evaluation.benchmark.pictures import choose, images_of
from cdm4mi.evaluation.benchmark.record import FORMAT, IMAGES, RECORD, SCORES, LevelRecord, ScanRecord, StudyRecord
from cdm4mi.evaluation.benchmark.scans import StudyScan
from cdm4mi.evaluation.benchmark.study import Level, StudyRun
from cdm4mi.evaluation.leakage import checked_by
from cdm4mi.evaluation.protocol import Protocol
from cdm4mi.evaluation.study import Study, study_of, write_csv, write_json
from cdm4mi.files import replacing_file

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "lightning", "bm3d", "PyWavelets")


def write_results(study: StudyRun, out: Path, command: str = "") -> None:
    """Write ``scores/`` (a CSV and a JSON file for each protocol and level), ``study.json`` and ``images.npz``.

    Nothing in them names a person or a path. ``study.json`` comes last: a folder that has it is complete.
    """
    levels = []
    for number, level in enumerate(study.levels):
        files = {}
        for protocol in study.protocols:
            judged = judge(study, level, protocol)
            stem = f"{protocol.name}-{number + 1}"
            write_csv(out / SCORES / f"{stem}.csv", judged)
            write_json(out / SCORES / f"{stem}.json", judged)
            files[protocol.label] = f"{stem}.json"
        levels.append(_level(level, files))
    panels = choose(study)
    with replacing_file(out / IMAGES) as temporary:
        np.savez_compressed(temporary, **images_of(study, panels))  # type: ignore[arg-type]  # none named allow_pickle
    record = StudyRecord(
        format=FORMAT,
        name=study.config.name,
        main=study.config.main_title,
        split=study.split,
        patients=sorted({scan.patient for scan in study.scans}),
        tuning_patients=sorted({scan.patient for scan in study.tuning}),
        scans=[_scan(scan) for scan in study.scans],
        protocols=[protocol.record() for protocol in study.protocols],
        methods=[method.facts() for method in study.methods],
        leakage={m.title: checked_by(m.model.about.data) for m in study.methods if isinstance(m, Model)},
        frequencies=frequencies().tolist(),
        reference_spectrum=_reference_spectrum(study),
        levels=levels,
        panels=panels,
        config=anonymous(study.config),
        provenance=provenance(study, command),
    )
    with replacing_file(out / RECORD) as temporary:
        temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def judge(study: StudyRun, level: Level, protocol: Protocol) -> Study:
    """All rows of a level under a protocol, with means over patients, intervals and tests of the main method."""
    rows: list[Row] = [row for cells in level.cells.values() for cell in cells for row in cell.rows[protocol.label]]
    resolved = {scan.name: scan.resolved[protocol.label] for scan in study.scans}
    return study_of(protocol, rows, resolved, study.config.main_title, seed=study.config.seed, split=study.split)


def _level(level: Level, files: dict[str, str]) -> LevelRecord:
    by_method = level.cells.items()
    notes = {title: _once([note for c in cells for note in c.notes]) for title, cells in by_method}
    return LevelRecord(
        noise=level.noise.model_dump(mode="json", exclude_none=True),
        described=level.noise.described(),
        short=short_name(level.noise),
        sigma=float(np.sqrt(np.mean(np.square(level.sigma)))),
        scores=files,
        inside_training=level.inside,
        seconds={title: float(np.mean([c.seconds for c in cells])) for title, cells in by_method},
        calls={title: max(c.calls for c in cells) for title, cells in by_method},
        notes={title: once for title, once in notes.items() if once},
        spectra={title: np.mean([c.spectrum for c in cells], axis=0).tolist() for title, cells in by_method},
    )


def short_name(noise: Any) -> str:
    """What a column or an axis calls a level: the type's main number."""
    for key, words in (
        ("variance", "variance {:g}"),
        ("sigma_hu", "{:g} HU"),
        ("target_hu", "{:g} HU"),
        ("percent", "{:g} %"),
        ("dose", "dose {:.3g}"),
    ):
        value = getattr(noise, key, None)
        if isinstance(value, int | float):
            return words.format(value)
    return str(noise.described())


def _once(notes: Sequence[str]) -> list[str]:
    """The first of the warnings that differ by the numbers of a scan alone."""
    found: dict[str, str] = {}
    for note in notes:
        found.setdefault(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", note), note)
    return list(found.values())


def _scan(scan: StudyScan) -> ScanRecord:
    return ScanRecord(
        name=scan.name,
        patient=scan.patient,
        slices=scan.slice_numbers,
        shape=list(scan.target.shape[1:]),
        spacing_mm=[round(mm, 4) for mm in scan.spacing],
        modality=scan.modality,
        window=(scan.norm.low, scan.norm.high),
        pixels_sha256=scan.digest,
    )


def _reference_spectrum(study: StudyRun) -> list[float]:
    label = study.protocols[0].label
    spectra = [radial_power(s.resolved[label].windowed(s.target)) for s in study.scans]
    mean: list[float] = np.mean(spectra, axis=0).tolist()
    return mean


def anonymous(config: BenchmarkConfig) -> dict[str, Any]:
    """The configuration without paths of folders, and with pseudonyms for names."""
    public = config.model_dump(mode="json", exclude_unset=True)
    data = public["data"]
    data["paths"] = [Path(path).name for path in data["paths"]] if data.get("kind") == "store" else len(data["paths"])
    for key in ("test_patients", "val_patients"):
        if data.get(key):
            data[key] = [name if name.startswith("patient-") else pseudonym(name) for name in data[key]]
    public["protocols"] = [Path(name).name for name in public["protocols"]]
    for method, section in zip(public["methods"], config.methods, strict=True):
        if isinstance(section, ModelMethod):
            for key in ("checkpoint", "config"):
                if method.get(key):
                    method[key] = Path(method[key]).name
            method["overrides"] = [o.split("=")[0] if "/" in o else o for o in method.get("overrides", [])]
    return public


def provenance(study: StudyRun, command: str) -> dict[str, Any]:
    """Versions and hardware."""
    import torch

    device = next((m.restorer.slices.device for m in study.methods if isinstance(m, Model)), torch.device("cpu"))
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "command": command,
        "cdm4mi": __version__,
        "python": sys.version.split()[0],
        "packages": packages,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
    }
