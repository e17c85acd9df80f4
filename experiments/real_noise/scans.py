"""The scans that models are judged on, which none was trained on, and those that the classical methods are tuned on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom.data

from cdm4mi import io
from cdm4mi.intensity import foreground, window_for
from cdm4mi.io import Volume
from cdm4mi.window import IntensityWindow
from experiments.shared import SCANS

SIDE, MARGIN = 160, 16
"""Pixels of the square in the middle of the body that is judged, and what a method sees around it."""

Square = tuple[slice, slice]


@dataclass(frozen=True)
class Scan:
    """A few whole slices of one person: clean in physical units (N, H, W), with the header facts that matter."""

    name: str
    volume: Volume
    window: IntensityWindow
    corner: tuple[int, int]
    side: int

    def square(self, margin: int = 0, side: int | None = None) -> Square:
        """The middle of the body, ``side`` pixels wide (all that is judged when None), and the margin there is."""
        side = self.side if side is None else min(side, self.side)
        inset = (self.side - side) // 2
        starts = [corner + inset for corner in self.corner]
        rows, columns = (
            slice(max(0, start - margin), min(n, start + side + margin))
            for start, n in zip(starts, self.volume.shape[1:], strict=True)
        )
        return rows, columns

    @property
    def body(self) -> np.ndarray:
        """Where the patient is in each slice, bool."""
        return foreground(self.volume.array, self.window.modality)

    def with_array(self, array: np.ndarray) -> Volume:
        """Other values, such as noisy ones, with the same header."""
        return self.volume.with_array(array.astype(np.float32))


def _files() -> dict[str, tuple[Path | str, int]]:
    """(file, slices that are judged) by the name of the scan."""
    held = {f"sub-{k}": (SCANS / f"mr/ds002748_sub-{k}_T1w.nii.gz", 2) for k in (15, 16, 17, 18, 19, 20)}
    return {
        **held,
        "head CT": (SCANS / "dicom/ge_head_ct_uneven", 3),
        "skull CT": ("J2K_pixelrep_mismatch.dcm", 1),  # of pydicom: a slice through the base of another skull
        "spine CT": ("CT_small.dcm", 1),  # of pydicom: 128 x 128 pixels of a back
        "lidc": (SCANS / "ct/lidc_0314_chest.nii.gz", 1),
        "acrin": (SCANS / "ct/acrin_flt_001_body.nii.gz", 1),
        "b = 0": (SCANS / "repeats/dti_21x2.nii.gz", 4),  # T2-weighted, echo-planar
    }


T1 = ("sub-17", "sub-18", "sub-19", "sub-20")
REVERSAL = "reversed "
REVERSED = tuple(f"{REVERSAL}{name}" for name in T1)
T2 = ("b = 0",)
HEADS = ("head CT", "skull CT")
CT = (*HEADS, "spine CT")
TUNE = {"MR": ("sub-15", "sub-16"), "CT": ("lidc", "acrin")}
"""By modality: validation subjects, and CT scans that were trained on."""


@cache
def scan(name: str) -> Scan:
    """Read a few slices, spread evenly over those that show much of the body.

    "reversed ..." turns the contrast of a skull-stripped T1 scan around, as T2 does: fluid bright, white matter dark.
    """
    whole, index = _whole(name)
    padding = None if whole.padding is None else whole.padding[index]
    volume = Volume(whole.array[index], whole.affine, whole.modality, padding=padding)
    return _scan(name, _reversed(volume, window_for(volume).high) if name.startswith(REVERSAL) else volume)


def block(name: str, reach: int = 24) -> tuple[Scan, list[int]]:
    """The slices of ``scan(name)`` with all that lie between them and ``reach`` more on each side, and which those are.

    What is judged, its square and its window are those of ``scan(name)``.
    """
    whole, index = _whole(name)
    of, first = scan(name), max(0, int(index[0]) - reach)
    volume = Volume(whole.array[first : index[-1] + reach + 1], whole.affine, whole.modality)
    if name.startswith(REVERSAL):
        volume = _reversed(volume, window_for(Volume(whole.array[index], whole.affine, whole.modality)).high)
    return replace(of, volume=volume), [int(k) - first for k in index]


def _whole(name: str) -> tuple[Volume, np.ndarray]:
    """A whole scan, and the indices of the slices that are judged."""
    path, count = _files()[name.removeprefix(REVERSAL)]
    if isinstance(path, str):
        path = Path(str(pydicom.data.get_testdata_file(path)))
    read = io.read(path)
    array = read.array[0] if read.array.ndim == 4 else read.array
    modality = "CT" if "CT" in name or name in TUNE["CT"] else "MR"
    shown = foreground(array, modality)
    where = np.flatnonzero(shown.mean((1, 2)) > min(0.15, 0.75 * shown.mean((1, 2)).max()))
    index = where[np.linspace(0, len(where) - 1, count + 2)[1:-1].round().astype(int)]
    padding = None if read.padding is None or read.array.ndim == 4 else read.padding
    return Volume(array, read.affine, modality, padding=padding), index


def _reversed(volume: Volume, high: float) -> Volume:
    """Dark for bright, but for what is 0."""
    return volume.with_array(np.where(volume.array > 0, (1.1 * high - volume.array).clip(0), 0))


def phantom(dose: str, repeats: int = 3) -> tuple[Scan, np.ndarray]:
    """The CT phantom of ``lcd`` in HU: its truth as a scan of so many equal slices, and as many repeats at a dose."""
    folder = SCANS / "lcd"
    side = 256
    truth = np.fromfile(folder / "ground_truth.raw", "<u2").reshape(side, side).astype(np.float32) - 1000
    files = [folder / f"dose_{dose}/signal_present/signal_present_{k:03d}.raw" for k in range(1, repeats + 1)]
    noisy = np.stack([np.fromfile(file, "<i2").reshape(side, side) for file in files]).astype(np.float32) - 1000
    volume = Volume(np.repeat(truth[None], repeats, 0), np.eye(4), "CT")
    return _scan(f"phantom, dose {dose}", volume), noisy


def repeats() -> Volume:
    """Diffusion MR acquired twice: (42, slices, rows, columns)."""
    return replace(io.read(SCANS / "repeats/dti_21x2.nii.gz"), modality="MR")


def _scan(name: str, volume: Volume) -> Scan:
    shown = foreground(volume.array, volume.modality).any(0)
    side = min(SIDE, *(n - n % 16 for n in volume.shape[1:]))
    if min(volume.shape[1:]) < 2 * SIDE and volume.modality == "MR":  # a small matrix: not mostly air
        side = min(side, int(np.sqrt(shown.sum())) // 16 * 16)
    corner = [
        int(np.clip(round(np.mean(c)) - side // 2, 0, n - side))
        for c, n in zip(np.nonzero(shown), shown.shape, strict=True)
    ]
    return Scan(name, volume, window_for(volume), (corner[0], corner[1]), side)
