"""A trust report on disk: its JSON record, and a page with the scans, the verdict and the findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cdm4mi.files import check_place, make_folder, refuse_taken
from cdm4mi.io import Volume, arrays, refuse_existing
from cdm4mi.trust.record import NOTICE, TrustReport
from cdm4mi.trust.verdict import described
from cdm4mi.viewer import Mark, Summary, make_scene, write_page

RECORD, PAGE = "trust.json", "trust.html"
MOST_SHOWN = 2**23
"""Voxels of each picture on the page, 32 slices of 512 x 512: some 30 MB with a restored scan, in half a second."""
CUT = "those with findings, and others between them; cdm4mi view SCAN RESTORED shows all"
HEADINGS = {
    "good": "Good: nothing speaks against this restoration",
    "caution": "Caution: look at the points below before you rely on it",
    "bad": "Bad: do not rely on this restoration",
}


def check_report_place(folder: Path, force: bool) -> None:
    """UserError where no report can be written into a folder: a check before long work. force: over one that exists."""
    for file in (folder / RECORD, folder / PAGE):
        check_place(file)
        refuse_taken(file, folder=False)
        if not force:
            refuse_existing(file)


def write_report(
    report: TrustReport,
    folder: Path,
    scan: Volume,
    restored: Volume,
    uncertainty: Volume | None = None,
    names: tuple[str, ...] = (),
) -> tuple[Path, Path]:
    """Write trust.json and trust.html into a folder, which is made; returns both paths.

    scan, restored, uncertainty: of the same voxels, for the page; names: what error messages call them. The page of a
    long scan shows some slices only (``slices_shown``), and says so.
    """
    volumes = [volume for volume in (scan, restored, uncertainty) if volume is not None]
    slices, *plane = scan.slices().shape
    shown = slices_shown(slices, MOST_SHOWN // math.prod(plane), [place.position[0] for place in report.findings])
    lines: list[tuple[str, str]] = [(reason.colour, reason.text) for reason in report.reasons]
    lines += [("note", line) for line in (report.intervals, report.lesions) if line]
    marks = [(described(place, report.unit), place.position) for place in report.findings]
    if len(shown) < slices:
        lines.append(("note", f"{len(shown)} of {slices} slices are on this page: {CUT}"))
        volumes = [of_slices(volume, shown) for volume in volumes]
        order = {k: n for n, k in enumerate(shown)}
        marks = [(text, (order[k], row, column)) for text, (k, row, column) in marks if k in order]
    scan, restored, *maps = volumes
    uncertainty = maps[0] if maps else None
    summary = Summary(HEADINGS[report.verdict], report.verdict, lines, [Mark(*mark) for mark in marks])
    scene = make_scene(scan, [restored], uncertainty, names=names, modality=report.modality, summary=summary)
    make_folder(folder)
    record, page = folder / RECORD, folder / PAGE
    write_page(scene, page)
    report.write(record, notice=NOTICE)
    return record, page


def slices_shown(slices: int, most: int, wanted: Sequence[int]) -> list[int]:
    """At most so many of the slices: those wanted, the first of them first, and others spread evenly over the scan."""
    most = max(1, most)
    chosen = set(list(dict.fromkeys(wanted))[:most])
    for k in np.linspace(0, slices - 1, min(most, slices)).round().astype(int).tolist():
        if len(chosen) < most:
            chosen.add(k)
    return sorted(chosen) if slices > most else list(range(slices))


def of_slices(volume: Volume, chosen: list[int]) -> Volume:
    """Some slices of a volume of one time point, in their positions."""
    origins = np.stack([volume.slice_affine(k)[:3, 3] for k in chosen])
    affine = volume.affine.copy()
    affine[:3, 3] = origins[0]
    if len(chosen) > 1:
        affine[:3, 2] = (origins[-1] - origins[0]) / (len(chosen) - 1)
    array = volume.slices()[chosen]
    arrays.release(volume.array)
    return replace(volume, array=array, affine=affine, slice_origins=origins, padding=None)
