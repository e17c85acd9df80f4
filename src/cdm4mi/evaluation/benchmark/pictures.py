"""Which slices a report shows: typical ones and the worst, by the figures of the main method; and their images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.evaluation.benchmark.record import Panel
from cdm4mi.evaluation.benchmark.study import Level, StudyRun


def choose(study: StudyRun) -> list[Panel]:
    """At every level the slice of the median PSNR of the main method and that of the least, by the first protocol.

    Then, over all levels, the slice where the main method falls furthest behind the best of the others.
    """
    typical, worst, behind = [], [], []
    main = study.config.main_title
    for number, level in enumerate(study.levels):
        found = _by_slice(study, level)
        order = sorted(found, key=lambda key: found[key][main])
        typical.append(_panel(study, number, order[len(order) // 2], found, "typical: the median PSNR"))
        if len(order) > 1:
            worst.append(_panel(study, number, order[0], found, "worst: the least PSNR"))
        for key, scores in found.items():
            others = {title: value for title, value in scores.items() if title != main}
            if others:
                best = max(others, key=lambda title: others[title])
                behind.append((scores[main] - others[best], number, key, best, found))
    shown = {(p.level, p.scan, p.k) for p in (*typical, *worst)}
    for loss, number, key, best, found in sorted(behind, key=lambda b: b[0])[:1]:
        if loss < 0 and (number, *key) not in shown:
            worst.append(_panel(study, number, key, found, f"worst: {-loss:.2f} dB behind {best}"))
    return [*typical, *worst]


def images_of(study: StudyRun, panels: list[Panel]) -> dict[str, NDArray[Any]]:
    """By "panel/method number", "panel/reference": (rows, columns) float16 in units of the window, 0 black, 1 white."""
    images = {}
    for number, panel in enumerate(panels):
        scan, level = study.scans[panel.scan], study.levels[panel.level]
        low, high = panel.window

        def shown(physical: NDArray[Any], low: float = low, high: float = high) -> NDArray[Any]:
            return np.clip((physical - low) / (high - low), 0, 1).astype(np.float16)

        images[f"{number}/reference"] = shown(scan.target[panel.k])
        for column, method in enumerate(study.methods):
            kept = level.cells[method.title][panel.scan].images[panel.k]
            images[f"{number}/{column}"] = shown(scan.norm.physical(kept))
    return images


SliceKey = tuple[int, int]


def _by_slice(study: StudyRun, level: Level) -> dict[SliceKey, dict[str, float]]:
    """PSNR of every method by (scan, slice in the study), whole image where the protocol has it."""
    protocol = study.protocols[0]
    region = protocol.regions[0]
    found: dict[SliceKey, dict[str, float]] = {}
    for title, cells in level.cells.items():
        for number, cell in enumerate(cells):
            where = {of: k for k, of in enumerate(study.scans[number].slice_numbers)}
            for row in cell.rows[protocol.label]:
                if row.slice is not None and row.region == region:
                    value = row.scores.get("psnr", -row.scores.get("rmse", 0.0))
                    found.setdefault((number, where[row.slice]), {})[title] = value
    return {key: scores for key, scores in found.items() if np.isfinite(list(scores.values())).all()} or found


def _panel(study: StudyRun, level: int, key: SliceKey, found: dict[SliceKey, dict[str, float]], why: str) -> Panel:
    (number, k), scan = key, study.scans[key[0]]
    resolved = scan.resolved[study.protocols[0].label]
    return Panel(
        why=why,
        level=level,
        scan=number,
        k=k,
        patient=scan.patient,
        slice=scan.slice_numbers[k],
        window=(resolved.low, resolved.high),
        unit=resolved.unit,
        scores=found[key],
    )
