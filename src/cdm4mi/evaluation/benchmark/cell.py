"""One method on one scan at one noise level: restored and judged once, kept as one file that appears whole."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi import __version__
from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Row
from cdm4mi.evaluation.benchmark.methods import StudyMethod
from cdm4mi.evaluation.benchmark.noising import NoisyScan, level_key
from cdm4mi.evaluation.metrics import METRICS, Uncertainty
from cdm4mi.evaluation.protocol import Protocol
from cdm4mi.evaluation.scores import score_stack
from cdm4mi.files import replacing_file
from cdm4mi.measure.metrics import body_mask
from cdm4mi.measure.spectrum import noise_power_spectrum, radial_mean

BINS = 48
"""Frequencies at which spectra are kept, up to half a cycle a pixel."""


@dataclass
class Cell:
    """What is kept. images: (N, rows, columns) float16 on the scan's [-1, 1], for pictures.

    rows: by protocol label. spectrum: power of the windowed slices at ``frequencies()``.
    """

    rows: dict[str, list[Row]]
    seconds: float
    calls: int
    notes: list[str]
    spectrum: list[float]
    images: NDArray[Any]


def cell_key(
    method: StudyMethod, noisy: NoisyScan, noise: Any, protocols: Sequence[Protocol], seed: int, level_given: bool
) -> str:
    """A hash of all that decides a cell: pixels, noise, method with weights and settings, windows, seed."""
    scan = noisy.scan
    content = {
        "version": __version__,
        "scan": scan.digest,
        "noise": level_key(noise),
        "seed": seed,
        "known": level_given,
        "method": method.key(),
        "protocols": {
            p.label: [p.metrics, p.regions, scan.resolved[p.label].low, scan.resolved[p.label].high] for p in protocols
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def make_cell(
    method: StudyMethod, noisy: NoisyScan, protocols: Sequence[Protocol], seed: int, level_given: bool, batch: int
) -> Cell:
    """Restore and judge."""
    scan = noisy.scan
    restored = method.restore(noisy, level_given, seed, batch)
    if not np.isfinite(restored.array).all():
        raise UserError(f"{method.title}: made pixels that are not finite of {scan.name}, expected an image")
    bodies = body_mask(scan.target, scan.modality)
    stated = {} if restored.sd is None else {method.title: Uncertainty(sd=restored.sd)}
    rows = {
        protocol.label: [
            numbered(row, scan.slice_numbers)
            for row in score_stack(
                scan.patient,
                scan.name,
                {method.title: restored.array},
                scan.target,
                scan.resolved[protocol.label],
                stated,
                bodies,
            )
        ]
        for protocol in protocols
    }
    first = scan.resolved[protocols[0].label]
    images = np.clip(scan.norm.normalised(restored.array), -8, 8).astype(np.float16)
    spectrum = radial_power(first.windowed(restored.array))
    return Cell(rows, restored.seconds, restored.calls, restored.notes, spectrum, images)


def numbered(row: Row, numbers: Sequence[int]) -> Row:
    """The row with its slice's number in the scan."""
    return row if row.slice is None else replace(row, slice=numbers[row.slice])


def frequencies() -> NDArray[Any]:
    """Cycles a pixel at which spectra are kept."""
    return (np.arange(BINS) + 1) * 0.5 / BINS


def radial_power(windowed: NDArray[Any]) -> list[float]:
    """Power of slices (N, rows, columns) over ``frequencies()``, tapered, squared first and then averaged."""
    at, power = radial_mean(noise_power_spectrum(windowed, taper=True))
    kept: list[float] = np.exp(np.interp(frequencies(), at, np.log(np.maximum(power, 1e-30)))).tolist()
    return kept


def without_neighbours(protocol: Protocol, spread: bool) -> Protocol:
    """The protocol without what neighbouring slices are needed for, where they are missing."""
    metrics = [m for m in protocol.metrics if not (spread and METRICS[m].of == "scan")]
    return protocol.model_copy(update={"metrics": metrics})


def save_cell(path: Path, cell: Cell) -> None:
    """Whole or not at all."""
    content = {
        "rows": {label: [vars(row) for row in rows] for label, rows in cell.rows.items()},
        "seconds": cell.seconds,
        "calls": cell.calls,
        "notes": cell.notes,
        "spectrum": cell.spectrum,
    }
    with replacing_file(path) as temporary:
        np.savez_compressed(temporary, said=np.array(json.dumps(content)), images=cell.images)


def load_cell(path: Path, title: str, noisy: NoisyScan) -> Cell | None:
    """What an earlier run kept, under today's names; None where there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            content, images = json.loads(str(kept["said"])), kept["images"]
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile):
        return None
    named = {"method": title, "patient": noisy.scan.patient, "scan": noisy.scan.name}
    rows = {label: [Row(**(row | named)) for row in rows] for label, rows in content.pop("rows").items()}
    return Cell(rows=rows, images=images, **content)
