"""The fingerprint of a store: a summary of its scans from which a training is planned (after nnU-Net)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.names import SPLITS
from cdm4mi.data.records import Manifest, ManifestScan
from cdm4mi.data.store import CONDITION, TARGET, StoredScan
from cdm4mi.data.stored import scan_of
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.measure.noise_level import estimate_noise

NAME = "fingerprint.json"
FORMAT = 3
SCANS_A_SOURCE = 12
"""Scans of one source that are measured, evenly spread over all."""
SLICES_A_SCAN = 3
PERCENTILES = (0.5, 50.0, 99.5)
CLIPPED = 1 - 1e-6
"""On [-1, 1]: values beyond this were clipped by the window."""


def make_fingerprint(store: Path, manifest: Manifest) -> dict[str, Any]:
    """Summarise the scans of a store: counts by split and source, geometry, intensities, foreground and noise.

    Intensities and noise are measured on some slices of training and validation; the test set is counted, not looked
    at. Ranges are [least, median, most].
    """
    scans = manifest.scans
    sources = sorted({scan.source for scan in scans})
    seen = [scan for scan in scans if scan.split != "test"]
    measured = {source: _measured(store, manifest, [s for s in seen if s.source == source]) for source in sources}
    every = [slice_ for slices in measured.values() for slice_ in slices]
    return {
        "format": FORMAT,
        "manifest_sha256": manifest.sha256,
        "modalities": sorted({scan.modality for scan in scans}),
        "window_hu": list(manifest.settings.window_hu),
        "percentiles": list(manifest.settings.percentiles),
        **_facts(scans, every),
        "sources": {source: _facts([s for s in scans if s.source == source], measured[source]) for source in sources},
    }


def write_fingerprint(store: Path, manifest: Manifest) -> dict[str, Any]:
    """The fingerprint of a manifest, read from the file beside it, or made and written where it is out of date."""
    fingerprint = _read(store / NAME)
    if fingerprint is not None and fingerprint.get("manifest_sha256") == manifest.sha256:
        return fingerprint
    fingerprint = make_fingerprint(store, manifest)
    with replacing_file(store / NAME) as temporary:
        temporary.write_text(json.dumps(fingerprint, indent=1) + "\n", encoding="utf-8")
    return fingerprint


def fingerprint_of(store: Path) -> dict[str, Any]:
    """The fingerprint of a store (its folder), made and written where there is none yet."""
    folder, manifest = read_manifest(store)
    return write_fingerprint(folder, manifest)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return fingerprint if isinstance(fingerprint, dict) and fingerprint.get("format") == FORMAT else None


def _facts(scans: Sequence[ManifestScan], measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def people(split: str) -> int:
        return len({scan.patient for scan in scans if scan.split == split})

    def slices(split: str) -> int:
        return sum(scan.slices - len(scan.doubled) for scan in scans if scan.split == split)

    return {
        "scans": len(scans),
        "patients": {split: people(split) for split in SPLITS},
        "slices": {split: slices(split) for split in SPLITS},
        "doubled_slices": sum(len(scan.doubled) for scan in scans),
        "real_pairs": sum(scan.pair is not None for scan in scans),
        "spacing_mm": [_spread(values) for values in zip(*(scan.spacing_mm for scan in scans), strict=True)],
        "rows": _spread([scan.shape[-2] for scan in scans]),
        "columns": _spread([scan.shape[-1] for scan in scans]),
        "window_low": _spread([scan.normalisation.low for scan in scans]),
        "window_high": _spread([scan.normalisation.high for scan in scans]),
        "foreground_fraction": _spread([scan.foreground_fraction for scan in scans]),
        **_intensities(measured),
    }


def _intensities(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summary of the measured slices: foreground percentiles, share clipped by the window, and noise."""
    if not measured:
        return {"measured_slices": 0}
    found = {
        "measured_slices": len(measured),
        "foreground_percentiles": {
            f"{p:g}": _spread([m["percentiles"][i] for m in measured]) for i, p in enumerate(PERCENTILES)
        },
        "clipped_fraction": _round(float(np.mean([m["clipped"] for m in measured]))),
        "noise": _noise([m["noise"] for m in measured]),
    }
    real = [m["condition"] for m in measured if "condition" in m]
    if real:
        found["condition_noise"] = _noise(real)
    return found


def _noise(measured: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {key: _spread([m[key] for m in measured]) for key in ("sigma", "on_unit_scale", "correlation")}


def _measured(store: Path, manifest: Manifest, scans: Sequence[ManifestScan]) -> list[dict[str, Any]]:
    """Measurements of some slices of some scans of one source, evenly spread."""
    found = []
    for scan in _spread_out(scans, SCANS_A_SOURCE):
        reader = scan_of(scan, store, manifest.settings.window_hu)
        # away from the ends of the scan, where a slice shows little
        inner = range(scan.slices // 6, scan.slices - scan.slices // 6)
        chosen = _spread_out(inner, SLICES_A_SCAN)
        noise = {
            name: _noise_of(np.stack([reader.read(kind, k, np.s_[:, :]) for k in chosen]), reader.window.scale)
            for name, kind in (("noise", TARGET), ("condition", CONDITION))
            if chosen and kind in (TARGET, *scan.stored)
        }
        found += [_slice_facts(reader, k) | noise for k in chosen]
    return found


def _slice_facts(reader: StoredScan, k: int) -> dict[str, Any]:
    values = reader.read(TARGET, k, np.s_[:, :])
    window = reader.window
    if not np.isfinite(values).all():
        raise UserError(f"{reader.path}: holds values that are not finite, expected numbers")
    inside = values[values > reader.foreground_above]
    inside = inside if inside.size else values.ravel()
    return {
        "percentiles": np.percentile(inside, PERCENTILES).tolist(),
        "clipped": float((np.abs(window.normalised(inside)) > CLIPPED).mean()),
    }


def _noise_of(values: NDArray[Any], scale: float) -> dict[str, float]:
    noise = estimate_noise(values)
    return {"sigma": noise.sigma, "on_unit_scale": noise.sigma * scale, "correlation": noise.correlation}


def _spread_out(items: Any, count: int) -> list[Any]:
    items = list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))] if items else []


def _spread(values: Iterable[float]) -> list[float]:
    values = list(values)
    return [_round(float(v)) for v in (min(values), np.median(values), max(values))]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
