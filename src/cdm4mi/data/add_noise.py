"""Noise added to a scan in its physical units: in memory, or from file to file with a record beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdm4mi import io
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError, naming
from cdm4mi.files import refuse_taken, replacing_together
from cdm4mi.intensity import guess_notice, window_for
from cdm4mi.io import Volume
from cdm4mi.locks import sole_writer
from cdm4mi.window import IntensityWindow


@dataclass
class Noisy:
    """A scan with noise; the drawn parameter of the degradation; the noise's standard deviation in the scan's units."""

    volume: Volume
    parameter: Any
    sigma_scanner: float
    normalisation: IntensityWindow


class NoiseRecord(io.OutputRecord):
    """How noise was added: its keys, the parameter that was drawn, and the level in the scan's units."""

    noise: dict[str, Any]
    seed: int
    parameter: Any
    noise_level: float
    normalisation: IntensityWindow
    slices: int


def add_noise(scan: Volume | str | Path, type: str = "gaussian", *, seed: int = 0, **parameters: Any) -> Volume:
    """The scan with simulated noise, in its units and geometry: ``add_noise(scan, "rician", percent=5, seed=1)``.

    scan: a volume, or the path of one. type: one of ``degradation.registry.SIMULATED`` (``cdm4mi noise --help`` lists
    them), or several as ``"rician + speckle"``. parameters: the keys of the type; a pair is a range that one value is
    drawn from for the scan. Raises UserError.
    """
    volume = scan if isinstance(scan, Volume) else io.read(scan)
    return noisy_scan(volume, noise_from_spec(type, parameters), seed).volume


def noisy_scan(
    volume: Volume, noise: Degradation, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Noisy:
    """Noise on every slice of a volume: one parameter for the scan, the noise of slice k decided by (seed, k).

    The window is that of training: -1000 to 1000 HU for CT, 0 to the 99.5th percentile of the foreground for MR and
    PET. Voxels that the noise does not change, and padding, keep their value exactly. progress: called with (slices
    done, slices).
    """
    if seed < 0:
        raise UserError(field="seed", found=seed, expected="a number of at least 0")
    norm = window_for(volume)
    frame = Frame.of(norm, volume.spacing[1:])
    try:
        noise.check(frame)
    except UserError as error:
        raise UserError("; ".join([str(error), *guess_notice(volume)])) from None
    parameter = noise.draw(generator(seed))
    clean = volume.images()
    x0 = torch.from_numpy(norm.normalised(clean))
    y = torch.empty_like(x0)
    for k, x in enumerate(x0):
        y[k] = noise.apply(x if volume.channels > 1 else x[0], parameter, generator(seed, k), frame)
        if progress is not None:
            progress(k + 1, len(x0))
    sigma_scanner = noise.level(x0, y, parameter, frame) / frame.scale
    kept = (y == x0).numpy()
    if volume.padding is not None:
        kept |= volume.padding.reshape(clean.shape)
    out = np.where(kept, clean, norm.physical(y.numpy()))
    return Noisy(volume.with_array(volume.arranged(out)), parameter, sigma_scanner, norm)


def noise_file(
    source: Path,
    target: Path,
    noise: Degradation,
    *,
    seed: int = 0,
    modality: str | None = None,
    series: int | None = None,
    like: Path | None = None,
    deidentify: bool | io.Deidentification = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseRecord:
    """Add noise to the scan at ``source`` and write it to ``target``; the record, returned, goes beside it as JSON.

    modality: where the file does not say. like: a scan whose headers the output takes. deidentify: apply the Basic
    Profile of DICOM PS3.15 to what is written. force: replace an output that exists. Raises UserError
    for what the user can mend.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder, expected a scan")
    with sole_writer(target, "noise"), naming("scan", source.name):
        if not force and target.resolve() != source.resolve():  # which no argument makes possible
            io.refuse_existing(target)
            io.refuse_existing(io.record_path(target))
        volume = io.read(source, series)
        if modality is not None:
            volume = replace(volume, modality=modality)
        template = None if like is None else io.read(like)
        io.check_target(volume, target, template, deidentify)
        refuse_taken(io.record_path(target), folder=False)
        noisy = noisy_scan(volume, noise, seed, progress)
        settings = {"noise": noise.model_dump(mode="json", exclude_none=True), "seed": seed}
        about = io.input_record(volume)
        derivation = io.Derivation(
            settings={**settings, "input": about.sha256},
            description=f"Simulated {noise.type} noise added",
            label="noise added",
        )
        still_free = partial(io.refuse_appeared, *(() if force else (target,)))
        with replacing_together(target, before=still_free) as (written,):
            notes = io.write(noisy.volume, written, template, derivation=derivation, deidentify=deidentify)
            record = NoiseRecord(
                **settings,
                parameter=noisy.parameter,
                noise_level=noisy.sigma_scanner,
                normalisation=noisy.normalisation,
                slices=len(volume.slices()),
                warnings=[*volume.warnings, *guess_notice(volume), *notes],
                input=about,
            )
            record = record.deidentified() if deidentify else record
            io.write_record(written, record)
        return record
