"""The patients of a store, whose slices are read from it when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cdm4mi.config.schema import DataConfig
from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.patient import Patient, Plane
from cdm4mi.data.records import ManifestScan
from cdm4mi.data.store import StoredCondition, StoredForeground, StoredScan, StoredSlice, read_record
from cdm4mi.degradation import Frame
from cdm4mi.errors import UserError
from cdm4mi.io.quantise import Grid
from cdm4mi.window import IntensityWindow


def stored_patients(config: DataConfig, splits: tuple[str, ...] = ("train", "val")) -> list[Patient]:
    """The patients of the store in ``data.paths`` that are in ``splits``, one Patient for each of their sources.

    Slices that another scan has already are left out. Raises UserError for settings that are fixed by the store.
    """
    if len(config.paths) != 1:
        raise UserError(f"data.paths: found {len(config.paths)} paths, expected one store (data.kind is store)")
    for name in ("val_patients", "exclude_patients"):
        if getattr(config, name):
            raise UserError(
                f"data.{name}: found with data.kind store, whose manifest has the split; expected none "
                "(give `split` to prepare)"
            )
    store, manifest = read_manifest(Path(config.paths[0]))
    prepared = list(manifest.settings.percentiles)
    if list(config.percentiles) != prepared and any(scan.modality != "CT" for scan in manifest.scans):
        raise UserError(
            f"data.percentiles: found {config.percentiles}, the store was prepared with {prepared}, expected the same "
            "(`percentiles` of prepare)"
        )
    patients: dict[tuple[str, str], Patient] = {}
    for scan in manifest.scans:
        if scan.split not in splits:
            continue
        key = scan.patient, scan.source
        if key not in patients:
            real: list[Plane] | None = [] if scan.pair is not None else None
            beside: list[list[Plane]] | None = [] if config.neighbours else None
            patients[key] = Patient(*key, [], [], scan.spacing_mm, [], real, scan.split, neighbours=beside)
        _add(patients[key], scan, store, config)
    return [patient for patient in patients.values() if patient.slices]


def scan_of(scan: ManifestScan, store: Path, window: Sequence[float]) -> StoredScan:
    """The reader of one scan of a manifest; window: HU that map to -1 and +1 in CT."""
    norm = IntensityWindow(window[0], window[1], "CT") if scan.modality == "CT" else scan.normalisation
    grids = {
        name: None if how.dtype == "float32" else Grid(np.dtype(how.dtype), how.scale, how.offset)
        for name, how in scan.stored.items()
    }
    rows, columns = scan.shape[-2:]
    return StoredScan(store / scan.file, (rows, columns), grids, norm, scan.foreground_above)


def _add(patient: Patient, scan: ManifestScan, store: Path, config: DataConfig) -> None:
    """Add every ``slice_step``-th slice of a scan, without duplicates, to a patient."""
    reader = scan_of(scan, store, config.window)
    frame = Frame.of(reader.window, scan.spacing_mm[1:])
    doubled = set(scan.doubled)
    held = read_record(reader.path)
    hashes = held[1] if held else []  # a damaged file is reported where it is read
    clean = [StoredSlice(reader, k) for k in range(len(scan.index))]
    shown = clean if patient.conditions is None else [StoredCondition(reader, k) for k in range(len(clean))]
    for k, scan_index in enumerate(scan.index):
        if k in doubled or scan_index % config.slice_step:
            continue
        patient.slices.append(clean[k])
        patient.foregrounds.append(StoredForeground(reader, k))
        patient.hashes += hashes[k : k + 1]
        if patient.frames is not None:
            patient.frames.append(frame)
        if patient.conditions is not None:
            patient.conditions.append(shown[k])
        if patient.neighbours is not None:
            patient.neighbours.append([shown[n] for n in _stored_neighbours(scan, k, config.neighbours)])


def _stored_neighbours(scan: ManifestScan, k: int, reach: int) -> list[int]:
    """The stored neighbours of the k-th slice; in place of one that is not stored, the one before it again."""
    number = {scan_index: n for n, scan_index in enumerate(scan.index)}
    length = scan.shape[-3]
    found: list[int] = []
    for way in (-1, 1):
        last, side = k, []
        for step in range(1, reach + 1):
            scan_index = scan.index[k] + way * step
            if scan_index // length == scan.index[k] // length:  # of one time point
                last = number.get(scan_index, last)
            side.append(last)
        found += side[::-1] if way < 0 else side
    return found
