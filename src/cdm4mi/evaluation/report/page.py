"""The page of a report: tables, curves, pictures and provenance in one HTML text without a link to anything."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

from cdm4mi.evaluation.report import curves
from cdm4mi.evaluation.report.panels import panels
from cdm4mi.evaluation.report.record import Record
from cdm4mi.evaluation.report.style import CSS, SCRIPT
from cdm4mi.evaluation.report.table import Table, as_html
from cdm4mi.evaluation.report.tables import counted, stamp, verdicts


def page(record: Record, tables: list[Table]) -> str:
    """The whole page."""
    return "".join(_parts(record, tables))


def _parts(record: Record, tables: list[Table]) -> Iterator[str]:
    name = html.escape(record.said["name"])
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{CSS}</style></head>'
    yield f"<body><h1>{name}</h1>"
    yield (
        f"<p>{counted(len(record.methods), 'method')} on {counted(len(record.said['patients']), 'test patient')}, "
        f"{counted(sum(len(scan['slices']) for scan in record.said['scans']), 'slice')}, "
        f"{counted(len(record.levels), 'noise level')}. Split {record.said['split']}. "
        "Research software, not for clinical use.</p>"
    )
    sections = ["summary", "tables", "curves", "pictures", "details", "provenance"]
    yield "<nav>" + "".join(f'<a href="#{s}">{s}</a>' for s in sections) + "</nav>"
    yield '<h2 id="summary">Summary</h2><ul>'
    yield "".join(f"<li>{html.escape(line)}</li>" for line in verdicts(record))
    yield f"</ul><p class='note'>{html.escape(stamp(record, record.protocols[0]))}</p>"
    yield '<h2 id="tables">Tables</h2><p class="note">A click on a heading sorts.</p>'
    yield from (as_html(table) for table in tables if not table.folded)
    yield '<h2 id="curves">Curves</h2>'
    yield from _curves(record)
    yield '<h2 id="pictures">Pictures</h2>'
    yield "<p>Image, a part of it enlarged, difference to the reference (image minus reference).</p>"
    yield from panels(record)
    yield '<h2 id="details">Details</h2><p class="note">A click opens a table.</p>'
    yield from (as_html(table) for table in tables if table.folded)
    yield '<h2 id="provenance">Provenance</h2>'
    yield from _provenance(record)
    yield f"<script>{SCRIPT}</script></body></html>\n"


def _curves(record: Record) -> Iterator[str]:
    note = f'<p class="note">{html.escape(stamp(record, record.protocols[0]))}</p>'
    told = (
        (
            "Over the noise level",
            curves.over_level(record),
            "Shaded: 95 % bootstrap interval; hollow: outside training. A colour is a model, a marker one way of "
            "sampling it; the axes leave out the noisy input, and what fails, where they are far off.",
        ),
        ("Over network calls", curves.over_calls(record), "No model is sampled in two ways."),
        ("Perception and distortion", curves.plane(record), "Needs PSNR and the spectrum's distance in the protocol."),
        (
            "Spectra",
            curves.spectra(record),
            "Over 0 dB: noise that is left or made up; under 0 dB: detail that is smoothed away.",
        ),
    )
    for title, svg, words in told:
        yield f"<h3>{title}</h3>"
        yield f"{svg}{note}" if svg else ""
        if not svg or title in ("Over the noise level", "Spectra"):
            yield f'<p class="note">{html.escape(words)}</p>'


def _provenance(record: Record) -> Iterator[str]:
    said = record.said
    if faults := [(p["name"], fault) for p in record.protocols for fault in p["faults"]]:
        yield "<h3>Known faults of the protocols</h3><ul class='warn'>"
        yield "".join(f"<li>{html.escape(f'{name}: {fault}')}</li>" for name, fault in faults) + "</ul>"
    yield "<h3>Protocols</h3><dl>"
    for protocol in record.protocols:
        about = f"{protocol['about']} Window: {protocol['described']}. Slices: {protocol['slices']}."
        yield f"<dt>{html.escape(protocol['label'])}</dt><dd>{html.escape(about)}</dd>"
    yield "</dl><h3>Leakage</h3>"
    if said["leakage"]:
        yield "<p>No test patient was found in the training of any model. What could be compared:</p><ul>"
        yield "".join(f"<li>{html.escape(f'{m}: {how}')}</li>" for m, how in said["leakage"].items()) + "</ul>"
    else:
        yield "<p>No trained model in this study.</p>"
    notes = [(lv["short"], m, n) for lv in record.levels for m, ns in lv["notes"].items() for n in ns]
    if notes:
        yield "<h3>What methods had to say (numbers: of the first scan)</h3><ul class='warn'>"
        yield "".join(f"<li>{html.escape(f'{level}, {m}: {note}')}</li>" for level, m, note in notes) + "</ul>"
    yield "<h3>Software and hardware</h3><dl>"
    yield from (
        f"<dt>{html.escape(k)}</dt><dd>{html.escape(_told(v))}</dd>" for k, v in said["provenance"].items() if v
    )
    yield "</dl><h3>Scans</h3>"
    yield f"<pre>{html.escape(_scans(said['scans']))}</pre>"
    yield f"<h3>Configuration</h3>{_folded('the study', said['config'])}"
    trained: dict[str, tuple[list[str], Any]] = {}
    for method in said["methods"]:
        if "configuration" in method:
            trained.setdefault(method["family"], ([], method["configuration"]))[0].append(method["title"])
    for titles, configuration in trained.values():
        yield _folded(f"training of {'; '.join(titles)}", configuration)


def _folded(title: str, said: Any) -> str:
    """Values that are shown on a click."""
    text = html.escape(json.dumps(said, indent=1))
    return f"<details><summary>{html.escape(title)}</summary><pre>{text}</pre></details>"


def _told(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _scans(scans: list[dict[str, Any]]) -> str:
    lines = []
    for scan in scans:
        size = " x ".join(map(str, scan["shape"]))
        numbers = ", ".join(map(str, scan["slices"]))
        window = f"{scan['window'][0]:.4g} to {scan['window'][1]:.4g}"
        lines.append(
            f"{scan['name']}  {scan['modality']}  {size} pixels  [-1, 1] is {window}  slices {numbers}  "
            f"pixels {scan['pixels_sha256'][:16]}"
        )
    return "\n".join(lines)
