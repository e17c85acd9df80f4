"""What a page shows: scans on one grid, with their titles, windows and units; no patient data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.intensity import modality_of
from cdm4mi.io import Volume
from cdm4mi.viewer.codes import encoded
from cdm4mi.viewer.oriented import Oriented, is_placed, oriented, voxel_of
from cdm4mi.viewer.windows import greatest, presets
from cdm4mi.window import IntensityWindow

UPRIGHT = 0.9998
"""Cosine (about 1 degree) of the angle between the stack of slices and their normal, under which they are tilted."""
INPUT, RESTORED, UNCERTAINTY = "input", "restored", "uncertainty"


@dataclass
class Picture:
    """A scan on the page. codes (time, z, y, x): see ``codes.Codes``, as are low and step."""

    title: str
    role: str
    codes: NDArray[np.uint16]
    low: float
    step: float


@dataclass
class Mark:
    """A voxel (slice, row, column) of the scan as it is stored, which a click on its text shows."""

    text: str
    position: tuple[int, int, int]


@dataclass
class Summary:
    """What stands above the pictures: a heading, its colour (good, caution or bad), lines below it, and marks."""

    heading: str
    colour: str
    lines: Sequence[tuple[str, str]] = ()
    """(colour, text) of each."""
    marks: Sequence[Mark] = ()


@dataclass
class Scene:
    """The pictures of a page, the scan's first, and what the page says of all of them (``facts``, plain data)."""

    pictures: list[Picture]
    facts: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """Everything but the voxels, as JSON holds it."""
        about = [{"title": p.title, "role": p.role, "low": p.low, "step": p.step} for p in self.pictures]
        return {
            **self.facts,
            "pictures": [{**a, "times": len(p.codes)} for a, p in zip(about, self.pictures, strict=True)],
        }

    def blocks(self) -> dict[str, NDArray[np.uint16]]:
        """The voxels (z, y, x) of each picture at each time, by the names under which the page asks for them."""
        return {f"{n}-{t}": codes for n, p in enumerate(self.pictures) for t, codes in enumerate(p.codes)}


def make_scene(
    scan: Volume,
    restored: Sequence[Volume] = (),
    uncertainty: Volume | None = None,
    *,
    names: Sequence[str] = (),
    modality: str | None = None,
    summary: Summary | None = None,
) -> Scene:
    """Prepare a scan, what was restored from it and its uncertainty for a page.

    Args:
        names: what error messages call the volumes, in this order, the uncertainty last (files); by default the titles.
        modality: "CT", "MR" or "PT", which decides the windows, where the file does not state it.
        summary: what stands above the pictures.

    Raises:
        UserError: for a colour image, or a volume whose voxels are not those of the scan.
    """
    volumes = [scan, *restored, *([] if uncertainty is None else [uncertainty])]
    numbers = [""] if len(restored) == 1 else [f" {n}" for n in range(1, len(restored) + 1)]
    roles = [INPUT, *([RESTORED] * len(restored)), *([] if uncertainty is None else [UNCERTAINTY])]
    titles = [INPUT, *(f"{RESTORED}{number}" for number in numbers[: len(restored)]), UNCERTAINTY]
    names = names or titles
    for volume, name in zip(volumes, names, strict=False):
        volume.refuse_colour(name)
    modality = modality or modality_of(scan)
    grid = oriented(scan)
    pictures, placed = [], []
    for volume, role, title, name in zip(volumes, roles, titles, names, strict=False):
        turned = grid if volume is scan else _on_grid(volume, scan, grid, name, names[0], role)
        coded = encoded(turned.array)
        pictures.append(Picture(title, role, coded.codes, coded.low, coded.step))
        placed.append(turned)
    differences = [greatest(p.array - grid.array) for p, role in zip(placed, roles, strict=True) if role == RESTORED]
    window = IntensityWindow(0.0, 1.0, modality)
    facts = {
        "size": list(grid.shape[::-1]),
        "spacing": grid.spacing,
        "affine": grid.affine.tolist(),
        "letters": grid.letters,
        "acquired": grid.acquired,
        "unit": scan.units or window.unit,
        "presets": [asdict(preset) for preset in presets(grid.array, modality)],
        "notes": _notes(scan),
        "difference": max(differences, default=1.0),
        "uncertainty": greatest(placed[-1].array) if uncertainty is not None else 1.0,
    }
    if summary is not None:
        marks = [{"text": mark.text, "at": voxel_of(mark.position, scan, grid)} for mark in summary.marks]
        facts["summary"] = {**asdict(summary), "marks": marks}
    return Scene(pictures, facts)


def _on_grid(volume: Volume, scan: Volume, grid: Oriented, name: str, scan_name: str, role: str) -> Oriented:
    """A volume oriented as the scan. UserError for other voxels, or other time points (an uncertainty may have one)."""
    placed = is_placed(volume) and is_placed(scan)
    if not placed and volume.shape[-3:] != scan.shape[-3:]:
        raise UserError(f"{name}: has {_size(volume)} voxels, expected the {_size(scan)} of {scan_name}")
    turned = oriented(volume, None if placed else scan)
    if turned.shape != grid.shape:
        raise UserError(f"{name}: has {_size(volume)} voxels, expected the {_size(scan)} of {scan_name}")
    if placed and not turned.on_voxels_of(grid):
        raise UserError(
            f"{name}: lies elsewhere in the patient than {scan_name} (affines differ), expected the same voxels"
        )
    if volume.times != scan.times and not (role == UNCERTAINTY and volume.times == 1):
        raise UserError(f"{name}: has {volume.times} time point(s), expected the {scan.times} of {scan_name}")
    return turned


def _notes(scan: Volume) -> list[str]:
    """Where the planes across the slices are not drawn as they lie in the patient."""
    notes = []
    if scan.slice_origins is not None:
        notes.append("The slices are spaced unevenly; they are drawn with the mean spacing.")
    axes = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    if abs(axes[:, 2] @ np.cross(axes[:, 0], axes[:, 1])) < UPRIGHT:
        notes.append("The slices are stacked at a tilt (gantry); planes across them are drawn without it.")
    return notes


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape[-3:]))
