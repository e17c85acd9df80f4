"""Restoring one scan of an archive, in a process that keeps the model for the next."""

from __future__ import annotations

import functools
import logging
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdm4mi import __version__
from cdm4mi.archive import bids
from cdm4mi.archive.reports import ScanReport
from cdm4mi.archive.series import Series
from cdm4mi.archive.table import Row
from cdm4mi.config.load import load_config
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.files import disk_error, make_folder
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Deidentification, record_path
from cdm4mi.io.arrays import arrays_in
from cdm4mi.models.checkpoint import TrainedModel, checkpoint_file, load_model


@dataclass(frozen=True)
class Job:
    """What holds for every scan: the folder of the outputs, and the arguments of ``denoise_file``.

    reports: the folder of the trust reports, each below it under the path of its output; strict: a scan that the model
    was not trained for is not restored. sampling: (name, value) of what is changed of the model's; config: the
    experiment file of a model without one; threads: of the processor, None: as torch chooses; version: of the program
    that asks, which a worker's has to be.
    """

    out: Path
    model: Path | None = None
    config: Path | None = None
    sampling: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    noise: float | None = None
    modality: str | None = None
    deidentify: Deidentification | bool = False
    phase: bool = False
    force: bool = False
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    memory: str | None = None
    threads: int | None = None
    reports: Path | None = None
    strict: bool = False
    version: str = __version__

    def arguments(self) -> dict[str, Any]:
        """Those of ``denoise_file`` that are no paths, no model and no settings of it."""
        names = "seed noise modality deidentify phase force device precision batch memory"
        return {name: getattr(self, name) for name in names.split()}


def model_of(job: Job) -> tuple[TrainedModel, SamplingConfig]:
    """The model of a job and its settings, loaded once in a process. Raises UserError for what no scan could mend."""
    return _loaded(job, None if job.model is None else checkpoint_file(job.model).stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _loaded(job: Job, written: int | None) -> tuple[TrainedModel, SamplingConfig]:
    """written: when the file of the model was, which a worker may outlive."""
    if job.version != __version__:
        raise UserError(f"a worker has version {__version__} of cdm4mi, expected {job.version} as here")
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    trained = load_model(job.model, load_config(str(job.config)) if job.config else None)
    sampling = changed(trained.config.sampling, **dict(job.sampling))
    Restorer(trained, sampling, job.device, job.precision, job.memory)  # which refuses what cannot be
    return trained, sampling


def restore(job: Job, series: Series) -> Row:
    """Restore one scan, or find it restored. Raises UserError for what would stop every other scan too."""
    for name in ("pydicom", "nibabel", "tifffile", "PIL", "highdicom"):  # they quote headers, which name patients
        logging.getLogger(name).setLevel(logging.CRITICAL)
    trained, sampling = model_of(job)
    output = job.out / series.target
    try:
        return _restored(job, series, trained, sampling, output)
    except UserError as error:
        if disk_error(error) is not None:
            raise
        message = str(error)
    except MemoryError:
        message = "does not fit into memory"
    except OSError as error:
        message = f"cannot be read or written ({error.strerror or type(error).__name__})"
    except Exception as error:  # what it says may name a patient
        *_, last = traceback.extract_tb(error.__traceback__)
        message = f"ended in {type(error).__name__} ({Path(last.filename).name}, line {last.lineno})"
    message = " ".join(message.split()).removeprefix(f"{Path(series.source).name}: ")
    return Row(series.source, series.target, "failed", message)


def _restored(job: Job, series: Series, trained: TrainedModel, sampling: SamplingConfig, output: Path) -> Row:
    make_folder(output.parent)
    before = _written(output)
    report = None
    if job.reports is not None or job.strict:
        report = ScanReport(None if job.reports is None else job.reports / series.target, job.strict)
    with arrays_in(output.parent):
        volume = series.read()
        volume.modality = job.modality or ("MR" if series.dataset else volume.modality)
        record = denoise_file(volume, output, trained, sampling, **job.arguments(), resume=True, observer=report)
        kept = before is not None and before == _written(output)
        if kept and report is not None:
            report.look_up(volume, output, record, trained, bool(job.deidentify))
    if series.dataset is not None:
        bids.finish(series.dataset, series.files[0], output, bool(job.deidentify))
    return Row(
        series.source,
        series.target,
        "kept" if kept else "restored",
        "; ".join([*record.warnings, *([report.missing] if report and report.missing else [])]),
        record.slices,
        record.noise_level.value,
        record.input.units or record.normalisation.unit,
        record.seconds,
        "" if report is None else report.verdict,
    )


def _written(output: Path) -> int | None:
    """When the record of an output was written; None without one."""
    place = record_path(output)
    return place.stat().st_mtime_ns if place.exists() else None
