"""Clean slices by patient, from volumes, from folders of HDF5 patches, or from phantoms."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from cdm4mi import io
from cdm4mi.config.schema import DataConfig
from cdm4mi.data.beside import Contrasts, neighbours_of
from cdm4mi.data.inventory import Unit, find_scans, named_as_scan
from cdm4mi.data.names import patch_patient, patient_names, pseudonym
from cdm4mi.data.patient import Patient, Plane
from cdm4mi.data.phantoms import PHANTOM_WINDOWS, phantom
from cdm4mi.data.resize import resized_patient
from cdm4mi.data.split import split_patients
from cdm4mi.data.store import slice_hash
from cdm4mi.data.stored import stored_patients
from cdm4mi.degradation.base import Frame
from cdm4mi.errors import UserError
from cdm4mi.intensity import foreground, window_for
from cdm4mi.window import IntensityWindow

log = logging.getLogger("cdm4mi.data")

PHANTOM_PATIENTS = 64
PHANTOM_SLICES = 6


def load_patients(config: DataConfig, image_size: int, seed: int) -> list[Patient]:
    """Every patient that the data section names, but for ``exclude_patients``. Raises UserError where there is none.

    From a store: its patients for training and validation, those with several sources once for each; the test set is
    never read.
    """
    if config.kind == "store":
        stored = stored_patients(config)
        return stored if config.resize is None else [resized_patient(p, config.resize) for p in stored]
    if config.kind == "phantoms":
        found = _phantoms(max(128, image_size), seed)
    else:
        if not config.paths:
            raise UserError(f"data.paths: found none, expected scans or folders (data.kind is {config.kind})")
        reader = _hdf5_patients if config.kind == "hdf5" else _volume_patients
        found = reader(config)
    if config.resize is not None:
        found = (resized_patient(patient, config.resize) for patient in found)
    every = _merged(found)
    unknown = sorted(set(config.exclude_patients) - {p.name for p in every})
    if unknown:  # a name that matches nobody would let a test patient into training
        names = ", ".join(p.name for p in every[:20])
        raise UserError(f"data.exclude_patients: found {unknown[0]!r}, expected names among {names}")
    patients = [p for p in every if p.name not in set(config.exclude_patients)]
    if not patients:
        raise UserError(f"data.paths: found no usable scan in {', '.join(config.paths)[:200]}")
    return patients


def split_names(patients: Sequence[Patient], config: DataConfig, seed: int) -> tuple[list[str], list[str]]:
    """(training, validation) patients by name: as their manifest says, else as ``split_patients`` draws them."""
    names = [patient.name for patient in patients]
    if config.kind != "store":
        return split_patients(names, config.val_fraction, seed, config.val_patients)
    train, val = (sorted({p.name for p in patients if p.split == split}) for split in ("train", "val"))
    if not train:
        raise UserError("data.paths: found a store without a patient for training, expected at least one")
    return train, val or train


def limited(patients: Sequence[Patient], count: int | None) -> list[Patient]:
    """The patients with ``count`` slices in all, evenly spread over theirs in order; with every slice for None.

    A patient without a slice left is left out.
    """
    indices = [(number, k) for number, patient in enumerate(patients) for k in range(len(patient.slices))]
    if count is None or count >= len(indices):
        return list(patients)
    chosen = {indices[i] for i in np.linspace(0, len(indices) - 1, count).round().astype(int)}
    return [
        with_slices(patient, kept)
        for number, patient in enumerate(patients)
        if (kept := [k for k in range(len(patient.slices)) if (number, k) in chosen])
    ]


def with_slices(patient: Patient, kept: Sequence[int]) -> Patient:
    """The patient with these slices only; all hashes stay, since the patient as a whole counts as seen by a model."""
    return replace(
        patient,
        slices=[patient.slices[k] for k in kept],
        foregrounds=[patient.foregrounds[k] for k in kept],
        frames=None if patient.frames is None else [patient.frames[k] for k in kept],
        conditions=None if patient.conditions is None else [patient.conditions[k] for k in kept],
        neighbours=None if patient.neighbours is None else [patient.neighbours[k] for k in kept],
        contrasts=None if patient.contrasts is None else [patient.contrasts[k] for k in kept],
    )


def name_in_header(volume: io.Volume) -> str | None:
    """A name made from the PatientID of a DICOM header, so that series of one patient in two folders share it."""
    source = volume.source
    patient_id = str(source.header.datasets[0].get("PatientID", "")) if source and source.kind == "dicom" else ""
    return pseudonym(patient_id) if patient_id else None


def named_scans(patterns: Sequence[str], key: str = "data.paths") -> list[tuple[Unit, io.ScanInfo]]:
    """The scans that the patterns name, folders recursively, as ``prepare`` finds them; no voxel is read.

    DICOM that names no patient is of one patient in each folder that was given. PNG files of a folder are scans where
    the patterns name no others. Raises UserError for a pattern without a match, and for a file that is named as a scan
    and is none.
    """
    paths: list[Path] = []
    for pattern in patterns:
        hits = sorted(Path(p) for p in glob.glob(pattern, recursive=True)) or [Path(pattern)]
        if not hits[0].exists():
            raise UserError(f"{key}: {pattern}: found nothing, expected a scan, a folder or a pattern")
        paths += hits
    found = find_scans(paths)
    if not found.units:
        found = find_scans(paths, pictures=True)
    if pictures := found.passed_over.get("PNG files"):
        log.warning("%s: passed over %d PNG file(s) in folders with other scans", key, pictures)
    people = dict(zip(paths, patient_names(paths), strict=True))
    scans: list[tuple[Unit, io.ScanInfo]] = []
    for unit in found.units:
        try:
            listing = unit.listing()
        except UserError as error:
            if unit.files[0] in paths or named_as_scan(unit.files[0]):
                raise
            log.warning("%s: passed over %s", key, error)  # an archive of other files
            continue
        if listing.unreadable:
            log.warning("%s: %s: passed over %s", key, unit.label, listing.unreadable_names())
        if unit.folder and not unit.person.startswith("sub-"):
            root = next(path for path in people if path in unit.files[0].parents)
            unit = replace(unit, person=people[root])
        scans += [(unit, info) for info in listing.scans]
    return scans


def _volume_patients(config: DataConfig) -> Iterator[Patient]:
    scans = named_scans(config.paths)
    contrasts = Contrasts([named_scans([pattern], "data.contrasts") for pattern in config.contrasts], config)
    met: set[str] = set()
    for unit, info in scans:
        volume = unit.load(info)
        patient_label = name_in_header(volume) or unit.person
        try:
            norm = window_for(volume, config.window, config.percentiles)
        except UserError as error:
            raise UserError(f"{unit.label}: {error}") from None
        array = volume.slices()[:: config.slice_step]
        mask = foreground(array, norm.modality)
        keep = [k for k in range(len(array)) if mask[k].mean() > 0.02]
        indices = [k * config.slice_step for k in keep]
        planes = _planes(volume, norm, config.neighbours, indices)
        beside = None
        if config.contrasts:
            if patient_label in met:
                raise UserError(
                    f"{unit.label}: is another scan of patient {patient_label}, expected one each with data.contrasts"
                )
            met.add(patient_label)
            images = contrasts.of(patient_label, volume, alone=len(scans) == 1)
            beside = [[image[p].astype(np.float16) for image in images] for p in indices]
        yield Patient(
            patient_label,
            f"{norm.modality}-{array.shape[1]}x{array.shape[2]}",
            [planes[p] for p in indices],
            [mask[k] for k in keep],
            volume.spacing,
            [Frame.of(norm, volume.spacing[1:])] * len(keep),
            hashes=[slice_hash(array[k]) for k in keep],
            neighbours=_neighbours(volume, planes, config.neighbours, indices) if config.neighbours else None,
            contrasts=beside,
        )


def _planes(volume: io.Volume, norm: IntensityWindow, reach: int, indices: Sequence[int]) -> dict[int, Plane]:
    """The slices at these indices and their neighbours, on [-1, 1]: (rows, columns), in colour (3, rows, columns)."""
    images = volume.images()
    wanted = {p for k in indices for p in (k, *_beside(volume, k, reach))}
    normalised = {p: norm.normalised(images[p]).clip(-1, 1).astype(np.float16) for p in sorted(wanted)}
    return {p: image if volume.channels > 1 else image[0] for p, image in normalised.items()}


def _neighbours(volume: io.Volume, planes: dict[int, Plane], reach: int, indices: Sequence[int]) -> list[list[Plane]]:
    return [[planes[p] for p in _beside(volume, k, reach)] for k in indices]


def _beside(volume: io.Volume, k: int, reach: int) -> list[int]:
    """Indices of the neighbours of slice k, in the same time point."""
    length = len(volume.slices()) // volume.times
    return [k // length * length + p for p in neighbours_of(k % length, length, reach)]


def _hdf5_patients(config: DataConfig) -> Iterator[Patient]:
    import h5py

    for root in map(Path, config.paths):
        files = sorted(p for p in root.rglob("*") if p.suffix in (".h5", ".hdf5", ".hdf")) if root.is_dir() else [root]
        if not files or not files[0].exists():
            raise UserError(f"data.paths: {root}: found no .h5 or .hdf5 file, expected a folder of patches")
        for file in files:
            try:
                with h5py.File(file, "r") as h5:
                    if "data" not in h5:
                        raise UserError(f"{file}: found datasets {sorted(h5)[:5]}, expected one named data")
                    if not isinstance(h5["data"], h5py.Dataset):
                        raise UserError(f"{file}: data is a group, expected a dataset")
                    if h5["data"].dtype.kind not in "iufb":
                        raise UserError(f"{file}: data holds {h5['data'].dtype}, expected numbers")
                    raw = np.asarray(h5["data"][()], dtype=np.float32)
            except OSError as error:
                raise UserError(f"{file}: not a readable HDF5 file ({error})") from None
            patches = raw.squeeze()
            patches = patches[None] if patches.ndim == 2 else patches
            if patches.ndim != 3 or patches.size == 0:
                raise UserError(f"{file}: data has shape {raw.shape}, expected (rows, columns) or (n, rows, columns)")
            low, high = float(patches.min()), float(patches.max())
            if not (low >= 0 and high <= config.dynamic_range):  # also where they are not numbers
                raise UserError(
                    f"{file}: data runs from {low:g} to {high:g}, expected 0 to dynamic_range {config.dynamic_range:g}"
                )
            slices = list((patches / config.dynamic_range * 2 - 1).astype(np.float16))
            yield Patient(
                patch_patient(root, file),
                root.name,
                slices,
                [s > -0.98 for s in slices],
                frames=[Frame(0.0, config.dynamic_range)] * len(slices),
            )


def _phantoms(size: int, seed: int) -> Iterator[Patient]:
    kinds: tuple[Literal["CT", "MR"], ...] = ("CT", "MR")
    for person in range(PHANTOM_PATIENTS):
        kind = kinds[person % 2]
        first = (seed * PHANTOM_PATIENTS + person) * PHANTOM_SLICES
        images = [phantom(kind, first + k, size) for k in range(PHANTOM_SLICES)]
        norm = IntensityWindow(*PHANTOM_WINDOWS[kind], kind)
        slices: list[Plane] = [norm.normalised(i).clip(-1, 1).astype(np.float16) for i in images]
        frames = [Frame.of(norm)] * len(slices)
        masks: list[Plane] = [foreground(i, kind) for i in images]
        yield Patient(f"phantom-{person:03d}", f"{kind}-phantom", slices, masks, frames=frames)


def _merged(patients: Iterator[Patient] | Sequence[Patient]) -> list[Patient]:
    """One Patient for each patient: several scans of a patient are joined."""
    out: dict[str, Patient] = {}
    for patient in patients:
        if patient.name in out:
            merged = out[patient.name]
            merged.slices += patient.slices
            merged.foregrounds += patient.foregrounds
            merged.hashes += patient.hashes
            if merged.frames is not None and patient.frames is not None:
                merged.frames += patient.frames
            if (merged.conditions is None) != (patient.conditions is None):
                raise UserError(f"patient {patient.name}: found a noisy scan for some scans, expected one for each")
            if merged.conditions is not None and patient.conditions is not None:
                merged.conditions += patient.conditions
            if merged.neighbours is not None and patient.neighbours is not None:
                merged.neighbours += patient.neighbours
        elif patient.slices:
            out[patient.name] = patient
    return list(out.values())
