"""The scans of a study: the clean slices of test and validation patients with all that judging them needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi import io
from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.names import pseudonym
from cdm4mi.data.sources import name_in_header, named_scans
from cdm4mi.data.store import CONDITION, TARGET, read_record, slice_hash
from cdm4mi.data.stored import scan_of
from cdm4mi.degradation.base import Frame
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.config import ScansSection
from cdm4mi.evaluation.protocol import Protocol
from cdm4mi.evaluation.resolve import ResolvedProtocol, resolve
from cdm4mi.intensity import foreground, window_for
from cdm4mi.window import IntensityWindow

LEAST_BODY = 0.02
"""Share of a slice that must be foreground for it to count, as in training."""


@dataclass(frozen=True)
class StudyScan:
    """Clean slices of one scan in physical units, cropped as the study says.

    name: of the scan, and patient: a pseudonym; both say nothing of the person. names: what else the patient may be
    called in a model's record of its training. slice_numbers: in the scan. target, condition: (N, rows,
    columns), the second the real noisy slices or None. whole, cut: the uncut slices and where the target lies in them
    (None where nothing is cut off). hashes: of the scan's slices that show something, whole. resolved: protocols, by
    label.
    """

    name: str
    patient: str
    names: frozenset[str]
    slice_numbers: list[int]
    target: NDArray[Any]
    norm: IntensityWindow
    spacing: tuple[float, float, float]
    hashes: frozenset[bytes]
    resolved: dict[str, ResolvedProtocol]
    condition: NDArray[Any] | None = field(default=None)
    whole: NDArray[Any] | None = field(default=None)
    cut: tuple[slice, slice] | None = field(default=None)

    @property
    def modality(self) -> str | None:
        return self.norm.modality

    @property
    def frame(self) -> Frame:
        """What [-1, 1] means in it."""
        return Frame(self.norm.low, self.norm.high, self.modality, self.spacing[1:])

    @property
    def digest(self) -> str:
        """SHA-256 over pixels, window and the numbers of the slices."""
        low, high, modality = self.norm.low, self.norm.high, self.norm.modality
        # spelled out, so that no new name of a class changes the splits that records state
        window = f"Normalisation(low={low!r}, high={high!r}, modality={modality!r})"
        text = f"{self.target.shape} {self.slice_numbers} {window} {self.spacing}"
        content = hashlib.sha256(text.encode() + np.ascontiguousarray(self.target).tobytes())
        if self.condition is not None:
            content.update(np.ascontiguousarray(self.condition).tobytes())
        return content.hexdigest()

    def volume(self, array: NDArray[Any]) -> io.Volume:
        """Slices in physical units as a volume of this scan's spacing."""
        slices, rows, columns = self.spacing
        return io.Volume(array, np.diag([columns, rows, slices, 1.0]), self.modality)


@dataclass
class _Raw:
    """One scan as it was read: whole slices that show a body."""

    names: tuple[str, ...]
    volume: io.Volume
    norm: IntensityWindow
    slice_numbers: list[int]
    hashes: list[bytes]
    condition: NDArray[Any] | None = None


def study_scans(
    config: ScansSection,
    split: str,
    protocols: Sequence[Protocol],
    slices: int | None,
    crop: int | None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[StudyScan]:
    """The scans of the patients of a split ("test" or "val"), sorted by patient, cut as asked.

    Raises UserError where there is no such patient, or a scan does not suit a protocol.
    """
    raw = list((_of_store if config.kind == "store" else _of_volumes)(config, split, progress))
    found: list[StudyScan] = []
    count: dict[str, int] = {}
    for scan in sorted(raw, key=lambda r: (r.names[-1], r.hashes[:1])):
        patient = scan.names[-1]
        count[patient] = count.get(patient, 0) + 1
        found.append(_cut(scan, patient, f"{patient}-{count[patient]}", protocols, slices, crop))
    return found


def split_hash(scans: Sequence[StudyScan], tuning: Sequence[StudyScan]) -> str:
    """Eight hex digits of which images are judged and which are tuned on."""
    parts = ["test", *sorted(s.digest for s in scans), "val", *sorted(s.digest for s in tuning)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _of_volumes(config: ScansSection, split: str, progress: Callable[[str], None]) -> Iterator[_Raw]:
    wanted = config.test_patients if split == "test" else config.val_patients
    others = set(config.val_patients) if split == "test" else set()
    met: set[str] = set()
    for unit, info in named_scans(config.paths):
        by_path = unit.person
        if wanted is not None and by_path not in wanted and not info.patient_id:
            continue
        progress(f"reading {split} scans")
        volume = unit.load(info)
        name = name_in_header(volume) or by_path
        aliases = {name, by_path, pseudonym(name), pseudonym(by_path)}
        asked = aliases & set(wanted) if wanted is not None else aliases
        met |= asked
        if not asked or (wanted is None and aliases & others):
            continue
        volume.refuse_colour(unit.label, "grey scans in a study")
        volume = _stacked(volume)
        norm = window_for(volume, config.window, config.percentiles)
        # blank slices are alike: skull-stripped scans have many
        hashes = [slice_hash(image) for image in volume.array if np.ptp(image) > 0]
        patient = name if name.startswith("patient-") else pseudonym(name)
        yield _Raw((*sorted(aliases - {patient}), patient), volume, norm, _showing(volume.array, norm), hashes)
    if missing := sorted(set(wanted or []) - met):
        raise UserError(f"data.{split}_patients: found {missing[0]!r}, which has no scan below data.paths")


def _of_store(config: ScansSection, split: str, progress: Callable[[str], None]) -> Iterator[_Raw]:
    if len(config.paths) != 1 or config.test_patients is not None or config.val_patients:
        raise UserError("data: kind store has its own split, expected one path and no test_patients or val_patients")
    store, manifest = read_manifest(Path(config.paths[0]))
    for scan in manifest.scans:
        if scan.split != split:
            continue
        progress(f"reading {split} scans")
        reader, whole = scan_of(scan, store, config.window), np.s_[:, :]
        held = [k for k in range(len(scan.index)) if k not in set(scan.doubled)]
        array = np.stack([reader.read(TARGET, k, whole) for k in held])
        volume = io.Volume(array, np.diag([*scan.spacing_mm[::-1], 1.0]), scan.modality)
        record = read_record(store / scan.file)
        if record is None:
            raise UserError(f"{store / scan.file}: missing or damaged, expected the store as it was written")
        real = np.stack([reader.read(CONDITION, k, whole) for k in held]) if scan.pair is not None else None
        yield _Raw((scan.patient,), volume, reader.window, list(range(len(held))), record[1], real)


def _cut(
    scan: _Raw, patient: str, name: str, protocols: Sequence[Protocol], slices: int | None, crop: int | None
) -> StudyScan:
    slice_numbers = spread(scan.slice_numbers, slices)
    target = scan.volume.array[slice_numbers]
    crop_box: tuple[slice, slice, slice] = np.s_[:, :, :]
    if crop is not None:
        crop_box = _central_square(foreground(target, scan.norm.modality), crop, name)
    return StudyScan(
        name=name,
        patient=patient,
        names=frozenset(scan.names),
        slice_numbers=slice_numbers,
        target=np.ascontiguousarray(target[crop_box]),
        norm=scan.norm,
        spacing=scan.volume.spacing,
        hashes=frozenset(scan.hashes),
        resolved={protocol.label: resolve(protocol, scan.volume, name) for protocol in protocols},
        condition=None if scan.condition is None else np.ascontiguousarray(scan.condition[slice_numbers][crop_box]),
        whole=None if crop is None else target,
        cut=None if crop is None else crop_box[1:],
    )


def spread(slice_numbers: Sequence[int], count: int | None) -> list[int]:
    """``count`` of them, evenly, away from both ends; all of them where there are no more."""
    if count is None or count >= len(slice_numbers):
        return list(slice_numbers)
    return [slice_numbers[int(i)] for i in np.linspace(0, len(slice_numbers) - 1, count + 2)[1:-1].round()]


def _central_square(mask: NDArray[Any], side: int, name: str) -> tuple[slice, slice, slice]:
    """A square around the centre of what the mask shows."""
    if side > min(mask.shape[1:]):
        size = " x ".join(map(str, mask.shape[1:]))
        raise UserError(f"crop: found {side}, expected at most the side of a slice of {name} ({size})")
    rows, columns = np.nonzero(mask.any(axis=0) if mask.any() else np.ones(mask.shape[1:]))
    first = [
        int(np.clip(np.mean(where) - side / 2, 0, n - side))
        for where, n in zip((rows, columns), mask.shape[1:], strict=True)
    ]
    return np.s_[:, first[0] : first[0] + side, first[1] : first[1] + side]


def _showing(array: NDArray[Any], norm: IntensityWindow) -> list[int]:
    """Numbers of the slices that show a body; all where none does."""
    share = foreground(array, norm.modality).mean((1, 2))
    return np.flatnonzero(share > LEAST_BODY).tolist() or list(range(len(array)))


def _stacked(volume: io.Volume) -> io.Volume:
    """Time points one after another as slices."""
    return io.Volume(volume.slices(), volume.affine, volume.modality, volume.source, units=volume.units)
