"""A trust report on disk: its JSON record, and a page with the scans, the verdict and the findings."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from cdm4mi.files import make_folder, replacing_file
from cdm4mi.io import Volume
from cdm4mi.trust.record import NOTICE, TrustReport
from cdm4mi.trust.verdict import described
from cdm4mi.viewer import Mark, Summary, make_scene, write_page

RECORD, PAGE = "trust.json", "trust.html"
HEADINGS = {
    "good": "Good: nothing speaks against this restoration",
    "caution": "Caution: look at the points below before you rely on it",
    "bad": "Bad: do not rely on this restoration",
}


def write_report(
    report: TrustReport,
    folder: Path,
    scan: Volume,
    restored: Volume,
    uncertainty: Volume | None = None,
    names: tuple[str, ...] = (),
) -> tuple[Path, Path]:
    """Write trust.json and trust.html into a folder, which is made; returns both paths.

    scan, restored, uncertainty: of the same voxels, for the page; names: what error messages call them.
    """
    summary = Summary(
        HEADINGS[report.verdict],
        report.verdict,
        [(reason.colour, reason.text) for reason in report.reasons],
        [Mark(described(place, report.unit), place.position) for place in report.findings],
    )
    scene = make_scene(scan, [restored], uncertainty, names=names, modality=report.modality, summary=summary)
    make_folder(folder)
    record, page = folder / RECORD, folder / PAGE
    write_page(scene, page)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    head = {"software": report.software, "version": report.version, "written": now, "notice": NOTICE}
    with replacing_file(record) as temporary:
        temporary.write_text(json.dumps(head | report.plain(), indent=2) + "\n", encoding="utf-8")
    return record, page
