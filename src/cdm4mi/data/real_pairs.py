"""Real pairs: the noisy slice at the position of each clean one, and their misalignment."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.records import Alignment
from cdm4mi.errors import UserError
from cdm4mi.io import Volume
from cdm4mi.io.geometry import reorient
from cdm4mi.window import IntensityWindow

MOST_SHIFT = 0.5
"""Voxels: a shift beyond it is reported."""
MEASURED_SLICES = 9
"""Slices of a pair on which the shift is measured; their median is taken."""
FINENESS = 20
"""The shift is measured to a twentieth of a pixel."""


def read_pairs(path: Path) -> list[tuple[Path, Path]]:
    """(noisy, clean) paths of a CSV with these two columns, in this order where it has no header.

    A relative path is looked for beside the CSV. Raises UserError for what is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: cannot be read, expected a CSV file of lines noisy,clean") from None
    header = [cell.lower() for cell in rows[0]] if rows else []
    columns = (0, 1)
    if {"noisy", "clean"} <= set(header):
        columns = (header.index("noisy"), header.index("clean"))
        rows = rows[1:]
    pairs = []
    for row in rows:
        if len(row) <= max(columns):
            raise UserError(f"{path}: found a line of {len(row)} cells, expected noisy,clean")
        noisy, clean = (path.parent / row[column] for column in columns)
        for scan in (noisy, clean):
            if not scan.exists():
                raise UserError(f"{path}: {scan} does not exist, expected a scan")
        pairs.append((noisy, clean))
    if not pairs:
        raise UserError(f"{path}: holds no pair, expected lines noisy,clean")
    return pairs


def match_positions(clean: Volume, noisy: Volume) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices of the clean slices that have a noisy one at their position, and those noisy slices (N, rows, columns).

    Positions are compared by the affines, to half a voxel; a noisy scan with mirrored or swapped axes is reoriented.
    Empty where none fits: another grid, or another position.
    """
    if clean.shape == noisy.shape and np.allclose(clean.affine, noisy.affine, atol=1e-3) and _plain(clean, noisy):
        return np.arange(len(clean.slices())), noisy.slices()
    if clean.array.ndim == noisy.array.ndim == 3 and clean.shape[1:] == noisy.shape[1:]:
        ours, theirs = _same_places(clean, noisy)
        if len(ours):
            return np.array(ours), noisy.array[theirs]
    try:
        turned = reorient(noisy.array, noisy.affine, clean.shape, clean.affine)
    except UserError:
        return np.arange(0), noisy.slices()[:0]
    same = turned.shape == clean.shape and _plain(clean, noisy)
    turned = turned.reshape(-1, *turned.shape[-2:])
    return (np.arange(len(turned)), turned) if same else (np.arange(0), turned[:0])


def measured_alignment(clean: NDArray[Any], noisy: NDArray[Any], window: IntensityWindow) -> Alignment:
    """Measure the alignment of real pairs (N, rows, columns) in physical units, on some of their slices.

    In the plane: phase correlation (cross-correlation, which noise hardly moves; Guizar-Sicairos et al. 2008), the
    median over slices. Across slices: the whole step (-1, 0 or 1) at which noisy slices are most like clean ones.
    """
    from skimage.registration import phase_cross_correlation

    chosen = np.unique(np.linspace(0, len(clean) - 1, MEASURED_SLICES).round().astype(int))
    inner = [int(k) for k in chosen if 0 < k < len(clean) - 1]
    needed = sorted({int(k) for k in chosen} | {k + step for k in inner for step in (-1, 1)})
    noisy_of = {k: window.normalised(noisy[k]).clip(-1, 1) for k in needed}
    clean_of = {int(k): window.normalised(clean[k]).clip(-1, 1) for k in chosen}
    # tapered: the jump at the border of the image would say that nothing has moved
    taper = np.outer(*(np.hanning(side + 2)[1:-1] for side in clean.shape[1:]))
    shifts = []
    for k, image in clean_of.items():
        one, other = ((plane - plane.mean()) * taper for plane in (image, noisy_of[k]))
        shifts.append(-phase_cross_correlation(one, other, upsample_factor=FINENESS, normalization=None)[0])
    rows, columns = (float(median) + 0.0 for median in np.median(shifts, axis=0))
    back = (-round(rows), -round(columns))
    alike = {
        step: float(np.mean([_correlation(clean_of[k], np.roll(noisy_of[k + step], back, (0, 1))) for k in centres]))
        for step, centres in ((0, inner or list(clean_of)), (-1, inner), (1, inner))
        if centres
    }
    step = max(alike, key=lambda s: alike[s])
    return Alignment(shift=(float(step), rows, columns), correlation=alike[step])


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0


def _plain(one: Volume, other: Volume) -> bool:
    return one.slice_origins is None and other.slice_origins is None


def _same_places(clean: Volume, noisy: Volume) -> tuple[list[int], list[int]]:
    """Index pairs of slices of two scans, with equal size in the plane, at one position; each at most once."""
    corners = np.array([[0, 0, 0, 1], [clean.shape[2] - 1, 0, 0, 1], [0, clean.shape[1] - 1, 0, 1]], float).T
    theirs = np.stack([(noisy.slice_affine(k) @ corners)[:3] for k in range(noisy.shape[0])])
    normal = np.cross(clean.affine[:3, 0], clean.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    across, in_plane = clean.spacing[0], min(clean.spacing[1:])
    pairs: list[tuple[int, int]] = []
    for k in range(clean.shape[0]):
        away = theirs - (clean.slice_affine(k) @ corners)[:3]  # (noisy slices, xyz, corners)
        along = np.abs(np.einsum("nxc,x->nc", away, normal)).max(1)
        beside = np.linalg.norm(away - np.einsum("nxc,x->nc", away, normal)[:, None] * normal[:, None], axis=1).max(1)
        nearest = int(np.argmin(along))
        if along[nearest] < MOST_SHIFT * across and beside[nearest] < MOST_SHIFT * in_plane:
            pairs.append((k, nearest))
    first: dict[int, int] = {}
    for k, n in pairs:
        first.setdefault(n, k)
    return list(first.values()), list(first)
