"""Sort slices by their positions and orientations, find the affine of the stack, and name what is irregular.

DICOM gives LPS millimetres; a Volume has RAS. All functions here take and give LPS unless they say RAS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import contiguous

# How far slice positions may lie from an even line before they are called uneven: DICOM writers round to 1e-3 mm or so.
EVEN_MM = 0.01
EVEN_FRACTION = 0.01
TILT_DEGREES = 0.1
MOST_SPACING, MOST_AWAY = 1e4, 1e6
"""Millimetres between voxels, and from the origin to the first, that no scanner spans."""
LEAST_DETERMINANT = 1e-12
"""mm^3 of a voxel under which its axes are not independent."""


@dataclass
class Stack:
    """Slices in order along their normal: indices into the given ones, affine (RAS, mm), origins where uneven."""

    order: NDArray[Any]
    affine: NDArray[Any]
    origins: NDArray[Any] | None
    warnings: list[str] = field(default_factory=list)


def normal_of(orientation: NDArray[Any]) -> NDArray[np.floating]:
    """Unit normal of the plane of ImageOrientationPatient (row direction, column direction)."""
    normal = np.cross(orientation[:3], orientation[3:])
    unit: NDArray[np.floating] = normal / np.linalg.norm(normal)
    return unit


def lps_to_ras(affine: NDArray[Any]) -> NDArray[np.floating]:
    flipped: NDArray[np.floating] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return flipped


def position_labels(offsets: NDArray[Any], tolerance: float = 1e-3) -> NDArray[Any]:
    """Label slices by position: slices whose offsets (mm along the normal) agree share a label, 0 for the lowest."""
    order = np.argsort(offsets, kind="stable")
    steps = np.diff(offsets[order]) > tolerance
    labels = np.empty(len(offsets), dtype=int)
    labels[order] = np.concatenate([[0], np.cumsum(steps)])
    return labels


def stack(
    positions: NDArray[Any], orientation: NDArray[Any], pixel_spacing: tuple[float, float], thickness: float | None
) -> Stack:
    """Order slices at different places along their normal, and find the affine (RAS).

    ``positions`` (n, 3): ImagePositionPatient; ``pixel_spacing``: (between rows, between columns) as PixelSpacing
    gives it; ``thickness`` stands in for the spacing of a single slice.
    """
    normal = normal_of(orientation)
    offsets = positions @ normal
    order = np.argsort(offsets, kind="stable")
    offsets, positions = offsets[order], positions[order]
    count = len(order)
    step = (positions[-1] - positions[0]) / (count - 1) if count > 1 else normal * (thickness or 1.0)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * pixel_spacing[1]
    affine[:3, 1] = orientation[3:] * pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    warnings: list[str] = []
    origins = None
    if count > 1:
        line = positions[0] + np.arange(count)[:, None] * step
        away = np.abs(positions - line).max()
        tolerance = max(EVEN_MM, EVEN_FRACTION * float(np.linalg.norm(step)))
        if away > tolerance:
            origins = positions * [-1.0, -1.0, 1.0]
            warnings.append(
                name_spacing(np.diff(offsets), np.linalg.norm(np.diff(positions, axis=0), axis=1), tolerance)
            )
        cosine = np.clip(abs(step @ normal) / np.linalg.norm(step), 0, 1)
        tilt = float(np.degrees(np.arccos(cosine)))
        if tilt > TILT_DEGREES:
            warnings.append(f"gantry tilt: the slices are stacked {tilt:.1f} degrees off their normal")
    return Stack(order, lps_to_ras(affine), origins, warnings)


def name_spacing(gaps: NDArray[Any], distances: NDArray[Any], tolerance: float) -> str:
    """One sentence on uneven gaps (mm, along the normal) between slices whose origins lie ``distances`` (mm) apart.

    Slices are called missing where the gaps are multiples of the usual one.
    """
    usual = float(np.median(gaps))
    multiples = np.rint(gaps / usual)
    missing = int((multiples - 1).sum())
    if (
        missing > 0
        and (multiples >= 1).all()
        and np.abs(gaps - multiples * usual).max() <= max(tolerance, 0.02 * usual)
    ):
        places = int((multiples > 1).sum())
        usually = f"the spacing is {usual:.2f} mm, the largest gap {gaps.max():.2f} mm"
        return f"missing slices: {missing} at {places} place(s); {usually}"
    if gaps.max() - gaps.min() <= tolerance:
        return "the slice origins do not lie on one line"
    uneven = f"uneven slice spacing: from {gaps.min():.2f} to {gaps.max():.2f} mm (median {usual:.2f} mm)"
    if np.abs(distances - gaps).max() > tolerance:
        uneven += f" along the normal, {distances.min():.2f} to {distances.max():.2f} mm between slice origins"
    return uneven


def require_independent_axes(affine: NDArray[Any], name: str, fields: str) -> None:
    """Refuse a header whose ``fields`` give a 4 x 4 affine that maps the voxels to less than a volume."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < LEAST_DETERMINANT:
        raise UserError(f"{name}: {fields}: found an affine that is singular or not finite, expected independent axes")
    greatest = float(np.linalg.norm(affine[:3, :3], axis=0).max())
    away = float(np.abs(affine[:3, 3]).max())
    for found, what, most in ((greatest, "apart", MOST_SPACING), (away, "from the origin", MOST_AWAY)):
        if found > most:
            raise UserError(f"{name}: {fields}: found voxels {found:g} mm {what}, expected at most {most:g}")


def require_even(origins: NDArray[Any] | None, name: str, target: str) -> None:
    """Refuse to write slices without an even spacing into a format that has one spacing."""
    if origins is None:
        return
    gaps = np.linalg.norm(np.diff(origins, axis=0), axis=1)
    raise UserError(
        f"{name}: the slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart, and {target} has one spacing for all; "
        "expected a DICOM output"
    )


def reorient(
    array: NDArray[Any], affine: NDArray[Any], like_shape: tuple[int, ...], like_affine: NDArray[Any]
) -> NDArray[Any]:
    """The array (…, k, j, i) on the voxel grid of another affine; the two may differ by swapped and mirrored axes.

    Refused where the grids are not the same voxels (to 1 % of a voxel).
    """
    shape, wanted = array.shape[-3:][::-1], like_shape[-3:][::-1]
    mapping = np.linalg.inv(affine) @ like_affine  # index in the wanted grid -> index in the array
    axes = io_orientation(np.linalg.inv(mapping))
    if not np.isnan(axes).any():
        turned = apply_orientation(array.T, axes)
        exact = inv_ornt_aff(axes, shape)
        corners = np.array([[0, 0, 0, 1], [*(np.array(wanted) - 1), 1]]).T
        if turned.shape[:3] == wanted and np.abs((mapping - exact) @ corners).max() < 0.01:
            return contiguous(turned.T, array.dtype)
    raise UserError(
        f"the template's voxels are not those of the volume: {shape} against {wanted} voxels, or another place or "
        "spacing; expected the same grid up to swapped and mirrored axes"
    )
