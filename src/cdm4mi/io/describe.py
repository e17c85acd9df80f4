"""What a path holds, in words and numbers: its scans, and for one of them geometry, values and warnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes

from cdm4mi.io.listing import Listing, list_scans
from cdm4mi.io.volume import Volume


@dataclass
class Description:
    """``listing``: every scan of the path. ``facts`` (name, value) and ``warnings`` are of the one that was read."""

    listing: Listing
    facts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def describe(path: str | Path, series: int | str | None = None) -> Description:
    """Describe a scan; where the path holds several and ``series`` is not given, only the list. No patient data."""
    listing = list_scans(path)
    if series is None and len(listing.scans) > 1:
        return Description(listing)
    volume = listing.choose(Path(path).name or str(path), series).load()
    return Description(listing, facts_of(volume), volume.warnings)


def facts_of(volume: Volume) -> list[tuple[str, str]]:
    """Format, size, spacing, directions, extent, units, value range of a volume."""
    array = volume.array
    finite = array if np.isfinite(array).all() else array[np.isfinite(array)]
    axes = {2: "rows x columns", 3: "slices x rows x columns", 4: "time x slices x rows x columns"}[array.ndim]
    if volume.channel_axis is not None:
        axes = "slices x rows x columns x channels"
    spacing = " x ".join(f"{s:.4g}" for s in volume.spacing)
    if volume.slice_origins is not None:
        spacing += " (mean between slices, uneven)"
    source = volume.source
    facts = [
        ("format", volume.kind or "-"),
        ("modality", volume.modality or "not stated"),
        ("size", " x ".join(str(n) for n in array.shape) + f" ({axes})"),
        ("spacing", spacing + " mm"),
        ("directions of columns, rows, slices", " ".join(str(code) for code in aff2axcodes(volume.affine))),
        ("first voxel (RAS)", ", ".join(f"{v:.2f}" for v in volume.affine[:3, 3]) + " mm"),
        ("stored as", str(source.dtype) if source is not None and source.dtype is not None else "-"),
    ]
    if source is not None and source.slice_axis:
        stored = ("third", "second", "first")[source.slice_axis]
        facts.insert(3, ("slices lie along", f"the {stored} stored axis (the other two are the planes)"))
    if finite.size:
        low, high = np.percentile(finite[::7] if finite.ndim == 1 else finite.ravel()[::7], [1, 99])
        units = f" {volume.units}" if volume.units else ""
        facts.append(
            ("values", f"{finite.min():.6g} to {finite.max():.6g}{units} (1 % to 99 %: {low:.4g} to {high:.4g})")
        )
    return facts
