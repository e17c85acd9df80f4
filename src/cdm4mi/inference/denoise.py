"""Restore a scan in one call: in memory, or from disk to disk with its record beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from cdm4mi import io
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError, naming
from cdm4mi.files import refuse_taken, replacing_together
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.inference.restorer import OnSlab, Restoration, Restorer
from cdm4mi.inference.scan import Scan
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slabs import kept_beside
from cdm4mi.io import Deidentification, Volume
from cdm4mi.io.arrays import arrays_in
from cdm4mi.io.dicom.deidentify import deidentification
from cdm4mi.io.quantity import refuse_other_quantities
from cdm4mi.locks import sole_writer
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.records import read_record_as


class Observer(Protocol):
    """Looks on while a scan is restored from file to file (``trust.during``)."""

    def begin(self, scan: Scan, model: TrainedModel) -> None:
        """Called before the first slice. What it raises ends the call, with nothing written."""

    def slab(self, first: int, y: NDArray[Any], restored: NDArray[Any], spread: NDArray[Any] | None) -> None:
        """Called with each slab that is finished, as ``restorer.OnSlab``."""

    def finish(self, restoration: Restoration, target: Path, deidentify: Deidentification | None) -> None:
        """Called once the output ``target`` and its record are written."""


_ALL_THE_SAME = " (`phase` restores it all the same)"


def denoise(
    scan: Volume | str | Path,
    model: TrainedModel | str | Path | None = None,
    *,
    estimate: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    planes: int | str | None = None,
    noise: float | None = None,
    keep_low_frequencies: float | str | None = None,
    contrasts: Sequence[Volume | str | Path] = (),
    seed: int = 0,
    phase: bool = False,
    device: str = "auto",
    precision: str = "auto",
) -> Restoration:
    """Restore a scan: ``denoise("ct.nii.gz").volume`` in the scan's units and geometry, ``.record`` of what was done.

    scan: a volume, or the path of one. model: from ``load_model`` or a path; the shipped one when None. estimate:
    "mean", "sample" or "mean-of-k"; steps: network calls a sample; samples: the K of mean-of-k; planes: 3 to restore
    the slices along rows and columns too, 1, or "auto"; None: as the model says. noise: standard deviation of the
    scan's noise in its units, measured when None. keep_low_frequencies: cycles a pixel up to which every slice keeps
    the scan's own frequencies, "auto" 0.02, None none. contrasts: the patient's other scans, for a model that was
    trained with some. phase: restore a phase or a field map too, of which the shipped models know nothing. device,
    precision: where and in which number format the network computes (auto: the fastest; ``inference.compute``).
    Raises UserError.
    """
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    sampling = changed(
        trained.config.sampling,
        estimate=estimate,
        steps=steps,
        samples=samples,
        planes=planes,
        keep_low_frequencies=keep_low_frequencies,
    )
    volume = scan if isinstance(scan, Volume) else io.read(scan)
    if not phase:
        refuse_other_quantities(volume, "scan", _ALL_THE_SAME)
    others = [other if isinstance(other, Volume) else io.read(other) for other in contrasts]
    return Restorer(trained, sampling, device, precision).restore(volume, noise=noise, seed=seed, contrasts=others)


def denoise_file(
    source: Volume | str | Path,
    target: str | Path,
    model: TrainedModel | str | Path | None = None,
    sampling: SamplingConfig | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    noise: float | None = None,
    modality: str | None = None,
    series: int | None = None,
    like: str | Path | None = None,
    deidentify: bool | Deidentification = False,
    uncertainty: str | Path | None = None,
    contrasts: Sequence[str | Path] = (),
    phase: bool = False,
    force: bool = False,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    memory: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_slab: OnSlab | None = None,
    observer: Observer | None = None,
) -> DenoiseRecord:
    """Restore the scan at ``source``, or a volume that was read, and write it to ``target``: of the same kind, unless
    the ending says otherwise.

    model: from ``load_model`` or a path; the shipped one when None. sampling: how to draw, the model's when None, or
    what is changed of it: ``{"estimate": "mean-of-k", "samples": 8}``.
    noise: standard deviation of the noise in physical units, measured when None. modality: where the file does not
    say. like: a scan whose headers the output takes (a DICOM series, for a NIfTI input and a DICOM output).
    deidentify: apply the Basic Profile of DICOM PS3.15 to what is written; an ``io.Deidentification`` says with which
    secret. uncertainty: where the standard deviation of the samples goes, a DICOM Parametric Map or any other format
    (estimate mean-of-k only). contrasts: the patient's other scans, in the order of the training's ``data.contrasts``.
    phase: restore a phase or a field map too. force: replace an output that exists. resume: keep one of the same
    scan, model and settings, and return its record. device, precision: as for ``denoise``. memory: bytes that the
    process may take, or a text as "2G" (None: as for ``Restorer``). on_slab: called with each finished slab
    (``restorer.OnSlab``). observer: looks on, such as ``trust.during.ReportWhileRestoring``. The record is written
    beside the output as JSON. Raises UserError for what the user can mend, before anything is written.

    The memory does not grow with the number of slices. Finished slices are kept in a hidden folder beside the output
    until it is whole: the same call goes on with those of one that was killed, and its result is the same; another scan
    or other arguments begin anew.
    """
    target = Path(target)
    uncertainty = None if uncertainty is None else Path(uncertainty)
    if not isinstance(source, Volume) and not Path(source).exists():
        raise UserError(f"{source}: no such file or folder, expected a scan")
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    if isinstance(sampling, Mapping):
        sampling = changed(trained.config.sampling, **sampling)
    restorer = Restorer(trained, sampling, device, precision, memory)
    name = "scan" if isinstance(source, Volume) else Path(source).name
    # Large arrays lie in files beside the output, so that a scan of any length is gone through in bounded memory.
    with sole_writer(target, "denoise"), arrays_in(target.absolute().parent), naming("scan", name):
        volume = source if isinstance(source, Volume) else io.read(source, series)
        if modality is not None:
            volume = replace(volume, modality=modality)
        if not phase:
            refuse_other_quantities(volume, name, _ALL_THE_SAME)
        template = None if like is None else io.read(like)
        others = [io.read(path) for path in contrasts]
        earlier = _earlier(target, restorer, volume, seed, noise, deidentify)
        if resume and earlier is not None and target.exists():
            if isinstance(deidentify, Deidentification) and deidentify.random:
                expected = "the secret of that run in `deidentify_key`, or a new folder"
                raise UserError(f"{target}: has random patient IDs of an earlier run, expected {expected}")
            return earlier
        # Found out before the work: what would stop the writing after it.
        io.check_target(volume, target, template, deidentify)
        if uncertainty is not None:
            if restorer.slices.sampling.estimate != "mean-of-k" or restorer.slices.sampling.samples < 2:
                needed = "`estimate` mean-of-k with `samples` 2 or more"
                raise UserError(field="uncertainty", found="one estimate only", expected=needed)
            if uncertainty.resolve() == target.resolve():
                raise UserError(
                    field="uncertainty", found=f"{uncertainty}, the place of the output", expected="another"
                )
            io.check_map_target(volume, uncertainty, template)
        refuse_taken(io.record_path(target), folder=False)
        for output in () if force else filter(None, (target, uncertainty)):
            io.refuse_existing(output)
        if not force and earlier is None:  # which a kill may have parted from its output
            io.refuse_existing(io.record_path(target))

        def begin(scan: Scan) -> None:
            if observer is not None:
                observer.begin(scan, trained)

        def finished_slab(first: int, y: NDArray[Any], restored: NDArray[Any], spread: NDArray[Any] | None) -> None:
            for call in (on_slab, None if observer is None else observer.slab):
                if call is not None:
                    call(first, y, restored, spread)

        with kept_beside(target) as slabs:
            restoration = restorer.restore(
                volume,
                noise=noise,
                seed=seed,
                batch=batch,
                contrasts=others,
                progress=progress,
                on_scan=begin,
                on_slab=finished_slab,
                slabs=slabs,
            )
            record = _written(restoration, target, uncertainty, template, deidentify, force)
        if observer is not None:
            observer.finish(restoration, target, deidentification(deidentify))
        return record


def _written(
    restoration: Restoration,
    target: Path,
    uncertainty: Path | None,
    template: Volume | None,
    deidentify: bool | Deidentification,
    force: bool,
) -> DenoiseRecord:
    """Write a restored scan, with its map of the standard deviation and its record. Returns the record."""
    # The record lies beside the output before it is there, so that no kill and no full disk parts the two.
    outputs = (target,) if uncertainty is None else (uncertainty, target)
    still_free = partial(io.refuse_appeared, *(() if force else outputs))
    with replacing_together(*outputs, before=still_free) as (*maps, restored):
        notes = io.write(restoration.volume, restored, template, deidentify=deidentify)
        for path in maps:
            assert restoration.spread is not None
            meaning = "Standard deviation of samples"
            io.write_map(restoration.spread, path, meaning, template, deidentify=deidentify)
        record = restoration.record.model_copy(update={"warnings": [*restoration.record.warnings, *notes]})
        record = record.deidentified() if deidentify else record
        io.write_record(restored, record)
    return record


def _earlier(
    target: Path,
    restorer: Restorer,
    volume: Volume,
    seed: int,
    noise: float | None,
    deidentify: bool | Deidentification,
) -> DenoiseRecord | None:
    """The record that lies beside an output, or where it would, if it is the one that would be written; else None."""
    place = io.record_path(target)
    if not place.is_file():
        return None
    try:
        record = read_record_as(DenoiseRecord, place.read_bytes(), str(place), "the record of a restored scan")
        level = record.noise_level
        about = io.input_record(volume)
        planes = restorer.preparation.planes(volume)
        alike = (
            record.weight_hash == restorer.model.weight_hash
            and record.seed == seed
            and record.settings == restorer.slices.settings(level.used * record.normalisation.scale, planes)
            and record.input == (about.without_hash() if deidentify else about)
            and record.precision == str(restorer.slices.dtype).removeprefix("torch.")
            and level.estimated == (noise is None)
            and (noise is None or math.isclose(level.value, noise, rel_tol=1e-6))
        )
    except (OSError, UserError):
        return None
    return record if alike else None
