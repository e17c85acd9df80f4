"""Find DICOM images among files and sort them into scans: one stack of planes of one series each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cdm4mi.errors import UserError
from cdm4mi.io.dicom.copies import alike
from cdm4mi.io.dicom.frames import frame_count
from cdm4mi.io.dicom.instance import Instance
from cdm4mi.io.dicom.mosaic import mosaic_of, plane_size
from cdm4mi.io.dicom.values import items, numbers, text, whole
from cdm4mi.io.quantity import echo_number, echo_time, quantity_of

# Objects of these modalities hold no scan, even where they have pixels (dose grids, segmentations).
NOT_SCANS = {
    "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "SEG", "REG", "RWV", "FID", "DOC", "AU", "ECG",
}  # fmt: skip
# How far the components of two planes' directions may differ before they are no longer parallel.
PARALLEL = 0.02
SAME_SPACING = 1e-4
"""How far two pixel spacings (mm) may differ and be one, rounded twice."""
_UNPLACED = "unplaced"
_SLICED = ("CT", "MR", "PT")
"""Modalities whose images are slices of one stack, where they are numbered."""


class _StackKey(NamedTuple):
    """What the planes of one stack share.

    quantity: what the numbers are; alone: "", the instance that stands alone, or ``_UNPLACED``.
    """

    series: str
    sop_class: str
    rows: int
    columns: int
    quantity: str
    modality: str
    patient: str
    alone: str


@dataclass
class DicomScan:
    """Instances that make one stack; ``part`` of ``parts`` where one series was split.

    quantity, echo: which of their frames belong to it (``io.quantity``); of a series of several echoes the echo time
    (ms), or the echo's number where the times do not tell them apart (``numbered``), else None. mixed: attributes in
    which the files of its series differ, though those of one series must not.
    """

    instances: list[Instance]
    part: int = 1
    parts: int = 1
    quantity: str = ""
    echo: float | None = None
    numbered: bool = False
    mixed: tuple[str, ...] = ()

    def slices(self) -> int:
        """How many slices it has, of all time points together."""
        return sum(self._slices_of(instance.dataset) for instance in self.instances)

    def holds(self, groups: Sequence[Dataset]) -> bool:
        """Whether a frame that these data sets describe belongs to it."""
        echo = echo_number(groups) if self.numbered else echo_time(groups)
        return quantity_of(groups) == self.quantity and self.echo in (None, echo)

    def _slices_of(self, dataset: Dataset) -> int:
        mosaic = mosaic_of(dataset)
        described = _descriptions(dataset)
        several = len(described) > 1
        return mosaic.count if mosaic else sum(map(self.holds, described)) if several else frame_count(dataset)


def is_directory(dataset: Dataset) -> bool:
    """Whether the file is a DICOMDIR, which names the files of a medium."""
    return "DirectoryRecordSequence" in dataset


def sort_into_scans(instances: Iterable[Instance]) -> tuple[list[DicomScan], Counter[str]]:
    """Sort instances into scans, in an order that no file name decides. Objects without an image are counted."""
    groups: dict[_StackKey, list[Instance]] = {}
    passed_over: Counter[str] = Counter()
    for instance in instances:
        if is_scan(instance.dataset):
            for quantity in sorted({quantity_of(groups) for groups in _descriptions(instance.dataset)}):
                groups.setdefault(_key(instance.dataset, quantity), []).append(instance)
        else:
            passed_over[_kind(instance.dataset)] += 1
    parts: dict[str, list[tuple[str, list[Instance]]]] = {}
    lost = _lost_slices(groups)
    for key in sorted(groups, key=str):
        stack = sorted(groups[key], key=lambda instance: text(instance.dataset, "SOPInstanceUID"))
        if not key.alone:
            stacks = _parallel(stack)
            max(stacks, key=len).extend(lost.get(key, []))
        else:
            stacks = _numbered(stack) if key.alone == _UNPLACED else alike(stack)
        parts.setdefault(key.series, []).extend((key.quantity, one) for one in stacks)
    scans = []
    for series, in_series in parts.items():
        of_series = [one for quantity, images in in_series for one in _by_echo(images, quantity)]
        mixed = _mixed([key for key in groups if key.series == series]) if series else ()
        scans += [replace(scan, part=n, parts=len(of_series), mixed=mixed) for n, scan in enumerate(of_series, 1)]
    return sorted(scans, key=_listing_order), passed_over


def _mixed(keys: list[_StackKey]) -> tuple[str, ...]:
    """The attributes of patient and modality of which the stacks of one series have several values."""
    found = {"PatientID": {key.patient for key in keys}, "Modality": {key.modality for key in keys}}
    return tuple(keyword for keyword, values in found.items() if len(values) > 1)


def _lost_slices(groups: dict[_StackKey, list[Instance]]) -> dict[_StackKey, list[Instance]]:
    """Take out of the groups what lacks a place alone among the slices of a stack (ImageType), by that stack's key.

    Reading refuses the stack and names them; as a scan of their own they would be missed in it.
    """
    lost: dict[_StackKey, list[Instance]] = {}
    for key, placed in groups.items():
        unplaced = [] if key.alone else groups.get(key._replace(alone=_UNPLACED), [])
        types = {text(instance.dataset, "ImageType") for instance in placed} if unplaced else set()
        lost[key] = [instance for instance in unplaced if text(instance.dataset, "ImageType") in types]
        unplaced[:] = [instance for instance in unplaced if text(instance.dataset, "ImageType") not in types]
    return lost


def _by_echo(instances: list[Instance], quantity: str) -> list[DicomScan]:
    """The scans of a stack: one, or one for each echo where a place was imaged at several echo times, or numbers."""
    for numbered in (False, True):
        echoes = _members(instances, quantity, numbered)
        if len(echoes) > 1:
            return [DicomScan(members, quantity=quantity, echo=echo, numbered=numbered) for echo, members in echoes]
    return [DicomScan(instances, quantity=quantity)]


def _members(instances: list[Instance], quantity: str, numbered: bool) -> list[tuple[float, list[Instance]]]:
    """(echo time, or number, its instances) in order; nothing where some have none, or no place has several."""
    places: dict[float | None, set[tuple[float, ...]]] = {}
    members: dict[float | None, list[Instance]] = {}
    for instance in instances:
        for groups in _descriptions(instance.dataset):
            if quantity_of(groups) != quantity:
                continue
            echo = echo_number(groups) if numbered else echo_time(groups)
            places.setdefault(echo, set()).add(_position(groups))
            of_echo = members.setdefault(echo, [])
            if not of_echo or of_echo[-1] is not instance:
                of_echo.append(instance)
    at = Counter(place for of_echo in places.values() for place in of_echo)
    times = sorted(echo for echo in members if echo is not None)
    if len(times) < len(members) or max(at.values(), default=1) == 1:
        return []
    return [(echo, members[echo]) for echo in times]


def _position(groups: Sequence[Dataset]) -> tuple[float, ...]:
    """ImagePositionPatient of a frame to 0.01 mm, () where it has none."""
    holders = (holder for group in groups for holder in (*items(group, "PlanePositionSequence")[:1], group))
    found = (numbers(holder, "ImagePositionPatient", 3) for holder in holders)
    return next((tuple(np.round(position, 2).tolist()) for position in found if position is not None), ())


def _parallel(instances: list[Instance]) -> list[list[Instance]]:
    """Split instances into sets of parallel planes of one pixel spacing, ordered by orientation.

    Numbers are compared, not their text: 1.0 is 1.00, and rounded headers do not split a series.
    """
    sets: list[tuple[list[float], list[float], list[Instance]]] = []
    by_text: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        dataset = instance.dataset
        key = text(dataset, "ImageOrientationPatient"), text(dataset, "PixelSpacing")
        if key not in by_text:
            found = numbers(dataset, "ImageOrientationPatient", 6), numbers(dataset, "PixelSpacing", 2)
            orientation, spacing = ([] if values is None else values.tolist() for values in found)
            sets_alike = (p for o, s, p in sets if _near(o, orientation, PARALLEL) and _near(s, spacing, SAME_SPACING))
            planes = next(sets_alike, None)
            if planes is None:
                planes = []
                sets.append((orientation, spacing, planes))
            by_text[key] = planes
        by_text[key].append(instance)
    return [planes for _, _, planes in sorted(sets, key=lambda one: one[:2])]


def _near(a: list[float], b: list[float], tolerance: float) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def _numbered(instances: list[Instance]) -> list[list[Instance]]:
    """Stack instances without positions where their numbers differ, in that order; else each stands alone."""
    stacks = []
    for planes in _parallel(instances):
        order = {whole(instance.dataset, "InstanceNumber"): instance for instance in planes}
        numbered = len(order) == len(planes)
        stacks += [[order[n] for n in sorted(order)]] if numbered else [[instance] for instance in planes]
    return stacks


def _descriptions(dataset: Dataset) -> list[tuple[Dataset, ...]]:
    """The data sets that describe an image, the most specific first; those of each frame of an enhanced one."""
    shared, per_frame = (items(dataset, f"{which}FunctionalGroupsSequence") for which in ("Shared", "PerFrame"))
    return [(group, *shared[:1], dataset) for group in per_frame] or [(*shared[:1], dataset)]


def scans_of(instance: Instance) -> list[DicomScan]:
    """The scans of one file. UserError, saying what the file is, where it holds no image."""
    if not is_scan(instance.dataset):
        raise UserError(f"{instance.name}: holds no scan ({_kind(instance.dataset)}), expected an image")
    return sort_into_scans([instance])[0]


def is_scan(dataset: Dataset) -> bool:
    return whole(dataset, "Rows") > 0 and whole(dataset, "Columns") > 0 and text(dataset, "Modality") not in NOT_SCANS


def description(scan: DicomScan) -> str:
    """SeriesDescription, with what it holds (no magnitude, one of several echoes) and the part of the series."""
    first = scan.instances[0].dataset
    named = text(first, "SeriesDescription") or text(first, "ProtocolName")
    echo = "" if scan.echo is None else f"echo {scan.echo:g}" if scan.numbered else f"echo at {scan.echo:g} ms"
    held = ", ".join(filter(None, (scan.quantity, echo)))
    named = f"{named} [{held}]".strip() if held else named
    return f"{named} (part {scan.part} of {scan.parts})".strip() if scan.parts > 1 else named


def _kind(dataset: Dataset) -> str:
    """Name an object that holds no scan (a report, a plan ...), for messages."""
    sop_class = UID(text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID"))
    named = "" if sop_class.name == sop_class else sop_class.name.removesuffix(" Storage")
    if named.endswith("Image"):
        return f"{named} without Rows or Columns"
    return named or text(dataset, "Modality") or "no pixels"


def _key(dataset: Dataset, quantity: str) -> _StackKey:
    """Key of the stack that an image belongs to, or of itself alone."""
    placed = numbers(dataset, "ImageOrientationPatient", 6), numbers(dataset, "ImagePositionPatient", 3)
    series, alone = text(dataset, "SeriesInstanceUID"), ""
    if frame_count(dataset) > 1:
        alone = text(dataset, "SOPInstanceUID")
    elif any(found is None for found in placed):
        numbered = series and text(dataset, "Modality") in _SLICED and "InstanceNumber" in dataset
        alone = _UNPLACED if numbered else text(dataset, "SOPInstanceUID")
    return _StackKey(
        series,
        text(dataset, "SOPClassUID"),
        *plane_size(dataset),
        quantity,
        text(dataset, "Modality"),
        text(dataset, "PatientID"),
        alone,
    )


def _listing_order(scan: DicomScan) -> tuple[str, int, str, int]:
    first = scan.instances[0].dataset
    number = whole(first, "SeriesNumber")
    return (text(first, "StudyInstanceUID"), number, text(first, "SeriesInstanceUID"), scan.part)
