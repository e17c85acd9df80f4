"""Restore a scan in one call: in memory, or from disk to disk with its record beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdm4mi import io
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.inference.restorer import Restoration, Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume
from cdm4mi.io.atomic import refuse_inputs
from cdm4mi.io.formats import format_of
from cdm4mi.models.checkpoint import TrainedModel, load_model


def denoise(
    scan: Volume | str | Path,
    model: TrainedModel | str | Path | None = None,
    *,
    estimate: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> Restoration:
    """Restore a scan: ``denoise("ct.nii.gz").volume`` in the scan's units and geometry, ``.record`` of what was done.

    scan: a volume, or the path of one. model: from ``load_model`` or a path; the shipped one when None. estimate:
    "mean", "sample" or "mean-of-k"; steps: network calls a sample; samples: the K of mean-of-k; None: as the model
    says. noise: standard deviation of the scan's noise in its units, measured when None. Raises UserError.
    """
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    sampling = changed(trained.config.sampling, estimate=estimate, steps=steps, samples=samples)
    volume = scan if isinstance(scan, Volume) else io.read(scan)
    return Restorer(trained, sampling).restore(volume, level=noise, seed=seed)


def denoise_file(
    source: Path,
    target: Path,
    model: TrainedModel,
    sampling: SamplingConfig | None = None,
    *,
    seed: int = 0,
    level: float | None = None,
    modality: str | None = None,
    series: int | None = None,
    batch: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Restore the scan at ``source`` and write it to ``target`` (same kind unless the ending says otherwise).

    level: standard deviation of the noise in physical units, measured when None. modality: where the file does not
    say. The record, returned, is written beside the output as JSON. Raises UserError for what the user can mend,
    before anything is written.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder, expected a scan")
    restorer = Restorer(model, sampling)
    volume = io.read(source, series)
    if modality is not None:
        volume = replace(volume, modality=modality)
    _check_target(target, volume)
    restoration = restorer.restore(volume, level=level, seed=seed, batch=batch, progress=progress)
    record = restoration.record
    derivation = io.Derivation(
        model_hash=record["weight_hash"],
        settings={**record["settings"], "seed": seed, "noise_level": record["noise_level"]["used"]},
        description="Denoised by a conditional diffusion model",
    )
    notes = io.write(restoration.volume, target, derivation=derivation)
    record["warnings"] += notes
    record["input"] = io.input_record(volume)
    io.write_record(target, record)
    return record


def _check_target(target: Path, volume: Volume) -> None:
    """Find out before the work what would stop the writing after it."""
    if volume.source is not None:
        refuse_inputs(target, volume.source.paths)
    if format_of(target, volume.source) == "dicom" and volume.kind != "dicom":
        raise UserError(f"{target}: a DICOM output needs a DICOM input for its headers, found {volume.kind}")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: exists and is not an empty folder, expected a new place for the output")
