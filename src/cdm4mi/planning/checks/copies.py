"""Checks for copies: a patient or an image in two splits, and images that occur twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cdm4mi.data.store import read_record, slice_hash
from cdm4mi.planning.checks.subject import Finding, Subject
from cdm4mi.planning.checks.values import FLAT

LEAK = "give all scans of a person, under whatever name, to one split (exclude_patients, val_patients, or `split`)"


def check_splits(subject: Subject) -> list[Finding]:
    """No patient and no image, even turned or mirrored, is in two splits."""
    if subject.validates_on_training and subject.manifest is None:
        message = "validation sees the patients of training, for want of others"
        return [Finding("splits", "note", message, "add patients, at least one for validation")]
    splits: dict[str, set[str]] = {}
    images: dict[bytes, set[tuple[str, str]]] = {}
    for patient, split, digest, _ in _images(subject):
        splits.setdefault(patient, set()).add(split)
        images.setdefault(digest, set()).add((patient, split))
    found = []
    both = sorted(patient for patient, its_splits in splits.items() if len(its_splits) > 1)
    if both:
        where = " and ".join(sorted(splits[both[0]]))
        message = f"{len(both)} patient(s) in two splits, first {subject.called(both[0])} in {where}"
        found.append(Finding("splits", "wrong", message, LEAK))
    leaks = [owners for owners in images.values() if len({split for _, split in owners}) > 1]
    if leaks:
        (one, where), (other, there), *_ = sorted(
            {split: (patient, split) for patient, split in sorted(leaks[0])}.values()
        )
        message = (
            f"{len(leaks)} image(s) in two splits, first of {subject.called(one)} ({where}) and "
            f"{subject.called(other)} ({there})"
        )
        found.append(Finding("splits", "wrong", message, LEAK))
    if found:
        return found
    counts = ", ".join(f"{sum(split in one for one in splits.values())} {split}" for split in sorted(_named(splits)))
    message = f"patients {counts}; none in two, nor an image"
    if subject.manifest is not None and not subject.manifest.patients["val"]:
        return [
            Finding("splits", "note", f"{message}; nobody for validation", "prepare more patients, or give `split`")
        ]
    return [Finding("splits", "ok", message)]


def check_doubled(subject: Subject) -> list[Finding]:
    """Images that occur twice in training and validation."""
    seen: set[bytes] = set()
    doubled = total = 0
    for _, _, digest, used in _images(subject, pairs=True):
        if not used:
            continue
        total += 1
        doubled += digest in seen
        seen.add(digest)
    left_out = sum(len(scan.doubled) for scan in subject.manifest.scans) if subject.manifest else 0
    also = f"; {left_out} that the store has twice are left out" if left_out else ""
    message = f"{doubled} of {total} images are there before{also}"
    if doubled:
        advice = "remove the copies: they count double in training, and hide a patient with two names"
        return [Finding("doubled", "wrong", message, advice)]
    return [Finding("doubled", "ok", message)]


def _named(splits: dict[str, set[str]]) -> set[str]:
    return {split for one in splits.values() for split in one}


def _images(subject: Subject, pairs: bool = False) -> Iterator[tuple[str, str, bytes, bool]]:
    """(patient, split, hash, whether it is in training or validation) of every image.

    pairs: hash an image together with its condition. The hashes of a store are those in its files. Images that show
    nothing would all be alike, and are left out.
    """
    if subject.manifest is not None and subject.folder is not None:
        for scan in subject.manifest.scans:
            record = read_record(subject.folder / scan.file)
            doubled = set(scan.doubled)
            for k, digest in enumerate((record[2] if pairs else record[1]) if record else []):
                yield scan.patient, scan.split, digest, k not in doubled
        return
    patients_of = {"train": subject.train, "test": subject.test}
    if not subject.validates_on_training:
        patients_of["val"] = subject.val
    for split, patients in patients_of.items():
        for patient in patients:
            for plane in patient.slices:
                image = np.asarray(plane[:, :], np.float32)
                if image.std() >= FLAT:
                    yield patient.name, split, slice_hash(image), split != "test"
