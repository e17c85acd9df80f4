"""Splits by patient: each patient is in one of them, together with all patients who share pixel data."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cdm4mi.config.yaml_text import plain, read_file
from cdm4mi.data.names import SPLITS, pseudonym
from cdm4mi.errors import UserError

LEAST_TO_SHARE = 3
"""Patients of one source from which each split gets at least one."""


def split_patients(
    patients: Sequence[str], val_fraction: float, seed: int, val_patients: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """(training, validation) patients, each sorted: at least one for validation, drawn by ``seed`` unless named.

    Raises UserError when a named patient is unknown or nobody is left to train on. A single patient is in both, which
    the caller must say.
    """
    names = sorted(set(patients))
    if not names:
        raise UserError("data: found no patient, expected at least one")
    if val_patients is not None:
        unknown = sorted(set(val_patients) - set(names))
        if unknown:
            raise UserError(f"data.val_patients: found {unknown[0]!r}, expected one of {', '.join(names[:20])}")
        val = sorted(set(val_patients))
    elif len(names) == 1:
        return names, names
    else:
        count = min(max(1, round(val_fraction * len(names))), len(names) - 1)
        val = sorted(np.random.default_rng(seed).permutation(names)[:count].tolist())
    train = [n for n in names if n not in set(val)]
    if not train:
        raise UserError("data.val_patients: found every patient, expected at least one left to train on")
    return train, val


def draw_split(
    sources: Mapping[str, str], links: Iterable[tuple[str, str]], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The split ("train", "val", "test") of each patient of ``sources`` (patient -> source), drawn within each source.

    ``links`` are pairs of patients who share pixel data and so stay together. Where a source has at least three
    patients, each split that is asked for gets one; sources with fewer are drawn from together. The order in which
    patients are taken is a hash of seed and name, so that one patient more moves few others.
    """
    leader = _leaders(sources, links)
    strata: dict[str, list[str]] = {}
    for patient in sorted(sources):
        if leader[patient] == patient:
            strata.setdefault(sources[patient], []).append(patient)
    small = [source for source, leaders in strata.items() if len(leaders) < LEAST_TO_SHARE]
    pooled = [patient for source in small for patient in strata.pop(source)]
    of_leader: dict[str, str] = {}
    for leaders in (*strata.values(), pooled):
        order = sorted(leaders, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).hexdigest())
        val, test = _shares(val_fraction, test_fraction, len(order), alone=not strata)
        for n, patient in enumerate(order):
            of_leader[patient] = "val" if n < val else "test" if n < val + test else "train"
    return {patient: of_leader[leader[patient]] for patient in sources}


def read_split(path: Path) -> dict[str, str]:
    """Read the split of a user's file: patient, by the user's name, to "train", "val" or "test".

    YAML: ``train: [names]`` ... or ``name: train`` ...; CSV: lines ``name,train``, with or without a header. Raises
    UserError for a patient in two splits and for a split of another name.
    """
    pairs = _of_csv(path) if path.suffix.lower() == ".csv" else _of_yaml(path)
    split: dict[str, str] = {}
    for patient, name in pairs:
        if name not in SPLITS:
            raise UserError(f"{path}: found the split {name!r}, expected train, val or test")
        if split.setdefault(patient, name) != name:
            raise UserError(f"{path}: patient {patient!r} is in {split[patient]} and in {name}, expected one split")
    return split


def given_split(path: Path, listed: Mapping[str, str], patients: Mapping[str, str]) -> dict[str, str]:
    """The split of each of ``patients`` (pseudonym -> label of a scan, for messages) as listed in the file ``path``.

    The file may use a patient's number, name or pseudonym. Raises UserError for a patient without a split,
    for a name that is no patient's, and for one patient in two splits under two names.
    """
    split: dict[str, str] = {}
    for name, chosen in listed.items():
        patient = name if name in patients else pseudonym(name)
        if patient not in patients:
            raise UserError(f"{path}: patient {name!r} has no scan here, expected names of patients that have")
        if split.setdefault(patient, chosen) != chosen:
            raise UserError(f"{path}: patient {name!r} is in {split[patient]} and in {chosen}, expected one split")
    missing = sorted(set(patients) - set(split))
    if missing:
        raise UserError(
            f"{path}: names no split for {len(missing)} patient(s), first {missing[0]} ({patients[missing[0]]})"
        )
    return split


def refuse_leaks(split: Mapping[str, str], shared: Mapping[tuple[str, str], int]) -> None:
    """Raise UserError for a split that separates two patients who share slices; shared: the number of slices."""
    for (one, other), count in sorted(shared.items()):
        if split[one] != split[other]:
            raise UserError(
                f"split: {one} ({split[one]}) and {other} ({split[other]}) share the pixel data of {count} slice(s), "
                "expected them in one split"
            )


def _shares(val_fraction: float, test_fraction: float, count: int, alone: bool) -> tuple[int, int]:
    """Numbers of patients, out of ``count``, for validation and test; alone: whether these are all patients."""
    if count < LEAST_TO_SHARE:
        return (1 if alone and count == 2 and val_fraction > 0 else 0), 0
    test = max(1, round(test_fraction * count)) if test_fraction > 0 else 0
    val = max(1, round(val_fraction * count)) if val_fraction > 0 else 0
    val = min(val, count - 1 - (test > 0))
    return val, min(test, count - 1 - val)


def _leaders(patients: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each patient the first of those to whom it is linked, directly or through others."""
    leader = {patient: patient for patient in patients}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    for one, other in links:
        first, second = sorted((find(one), find(other)))
        leader[second] = first
    return {patient: find(patient) for patient in leader}


def _of_yaml(path: Path) -> list[tuple[str, str]]:
    top = plain(read_file(path), str(path))
    if isinstance(top, dict):
        if set(top) <= set(SPLITS) and all(isinstance(names, list) for names in top.values()):
            return [(str(name), split) for split, names in top.items() for name in names]
        if all(isinstance(split, str) for split in top.values()):
            return [(name, split) for name, split in top.items() if isinstance(split, str)]
    raise UserError(f"{path}: expected lists train, val, test of patients, or a line 'patient: split' for each")


def _of_csv(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: cannot be read, expected a CSV file of lines patient,split") from None
    if rows and len(rows[0]) == 2 and rows[0][1].lower() == "split":
        rows = rows[1:]
    for row in rows:
        if len(row) != 2:
            raise UserError(f"{path}: found a line of {len(row)} cells, expected two: patient,split")
    if not rows:
        raise UserError(f"{path}: the file is empty, expected lines patient,split")
    return [(patient, split) for patient, split in rows]
