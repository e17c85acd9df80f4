"""Preparing one scan, or one real pair: it is read and written into the store."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi import io
from cdm4mi.data.inventory import Unit
from cdm4mi.data.manifest import SCANS, PreparedScan
from cdm4mi.data.real_pairs import match_positions, measured_alignment
from cdm4mi.data.records import FORMAT, ScanContent
from cdm4mi.data.store import CONDITION, TARGET, choose_grid, read_record, write_scan
from cdm4mi.data.tasks import ScanEntry, Task
from cdm4mi.errors import UserError
from cdm4mi.intensity import foreground_threshold, window_for
from cdm4mi.io.planes import LEAST_SIDE
from cdm4mi.io.quantise import Grid
from cdm4mi.io.quantity import refuse_other_quantities

LEAST_FOREGROUND = 0.02
"""A slice with a smaller share of foreground is not stored."""


@dataclass(frozen=True)
class Settings:
    """Settings that decide the content of a scan's file: window in HU, and percentiles of the foreground."""

    window: tuple[float, float] = (-1000.0, 1000.0)
    percentiles: tuple[float, float] = (0.0, 99.5)


@dataclass
class Outcome:
    """Result of a task: the scan as the store has it and whether it was prepared now, or the reason of a failure."""

    scan: PreparedScan | None = None
    fresh: bool = False
    problem: str = ""


def prepare_scan(task: Task, store: Path, settings: Settings) -> Outcome:
    """Prepare one task into ``store``, unless it has a file for the hash of its inputs and of the settings."""
    entry = task.clean
    try:
        key = _key(task, settings)
        file = store / SCANS / f"{key}.h5"
        stored = read_record(file) if file.is_file() else None
        if stored is not None:
            return Outcome(PreparedScan(*stored, entry.patient, entry.label))
        content, arrays = _content(task, settings)
    except UserError as error:
        return Outcome(problem=_one_line(entry, str(error)))
    except MemoryError:
        return Outcome(problem=_one_line(entry, "does not fit into memory; try fewer `workers`"))
    except Exception as error:  # one odd scan of thousands must not end the work on the others
        return Outcome(problem=_one_line(entry, f"cannot be read ({type(error).__name__})"))
    write_scan(file, content, arrays)
    written = read_record(file)
    if written is None:
        raise UserError(f"{file}: cannot be read back after it was written, expected a disk that keeps it")
    return Outcome(PreparedScan(*written, entry.patient, entry.label), fresh=True)


def _content(task: Task, settings: Settings) -> tuple[ScanContent, dict[str, tuple[NDArray[Any], Grid | None]]]:
    """Read a scan. Returns its description, and its slices that show the patient with the grids to store them on."""
    volume = _load(task.clean)
    volume.refuse_colour("scan", "a grey one in a store (train on colour with data.kind volumes)")
    refuse_other_quantities(volume, "scan")
    rows, columns = volume.shape[-2:]
    if min(rows, columns) < LEAST_SIDE:
        raise UserError(f"has slices of {rows} x {columns} pixels, expected at least {LEAST_SIDE} x {LEAST_SIDE}")
    window = window_for(volume, settings.window, settings.percentiles)
    values = volume.slices()
    above = foreground_threshold(values, window.modality)
    shares = np.array([float((image > above).mean()) for image in values])
    index = np.flatnonzero(shares > LEAST_FOREGROUND)
    condition, pair = None, None
    if task.noisy:
        matched, noisy = _counterpart(task, volume)
        chosen = np.isin(matched, index)
        condition, index = noisy[chosen], matched[chosen]
    if not len(index):
        raise UserError("shows nothing: found no slice with more than 2 % of foreground")
    clean = values[index]
    arrays = {TARGET: (clean, choose_grid(clean, volume.source, window))}
    warnings = list(volume.warnings)
    if condition is not None:
        if not np.isfinite(condition).all():
            raise UserError("the noisy scan holds values that are not finite, expected numbers")
        arrays[CONDITION] = (condition, choose_grid(condition, None, window))
        pair = measured_alignment(clean, condition, window)
        alone = int((shares > LEAST_FOREGROUND).sum()) - len(index)
        if alone:
            warnings.append(f"{alone} slice(s) without a noisy slice at their place were left out")
    source = volume.source
    content = ScanContent(
        source=f"{window.modality}-{values.shape[1]}x{values.shape[2]}",
        modality=window.modality,
        units=volume.units,
        format=volume.kind,
        source_type=str(source.dtype) if source is not None and source.dtype is not None else None,
        shape=list(volume.shape),
        slices=len(index),
        index=index.tolist(),
        spacing_mm=volume.spacing,
        affine_ras=volume.affine.tolist(),
        normalisation=window,
        foreground_above=above,
        foreground_fraction=float(shares[index].mean()),
        warnings=warnings,
        pair=pair,
    )
    return content, arrays


def _counterpart(task: Task, clean: io.Volume) -> tuple[NDArray[Any], NDArray[Any]]:
    """The matched slices of the noisy candidate that lies at the position of the clean scan."""
    fits = []
    for entry in task.noisy:
        matched, noisy = match_positions(clean, _load(entry))
        if len(matched):
            fits.append((matched, noisy))
    if len(fits) == 1:
        return fits[0]
    names = ", ".join(entry.label for entry in task.noisy)
    if not fits:
        raise UserError(f"no noisy slice lies where a clean one does, in {names}; expected one grid and place")
    raise UserError(f"{len(fits)} noisy scans lie where it does ({names}), expected one: name the pairs with `pairs`")


def _load(entry: ScanEntry) -> io.Volume:
    return _listing(entry.unit).scans[entry.number - 1].load()


@functools.lru_cache(maxsize=4)
def _listing(unit: Unit) -> io.Listing:
    return unit.listing()


def _key(task: Task, settings: Settings) -> str:
    """A hash of the voxels and the settings, without names or dates."""
    identity = {"format": FORMAT, **asdict(settings)}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for entry in (task.clean, *task.noisy):
        info = _listing(entry.unit).scans[entry.number - 1]
        digest.update(b"".join(sorted(_file_hash(path) for path in info.paths)))
    return digest.hexdigest()[:24]


def _file_hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.digest()


def _one_line(entry: ScanEntry, message: str) -> str:
    for name in (entry.unit.label, *(file.name for file in entry.unit.files)):
        message = message.removeprefix(f"{name}: ")
    return f"{entry.label}: {' '.join(message.split())}"
