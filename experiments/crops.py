"""The crops that the studies of T1 brains are judged on: subjects never trained on, white noise of one variance."""

from __future__ import annotations

import numpy as np

from cdm4mi import io
from cdm4mi.intensity import foreground, window_for
from experiments.shared import SCANS

TEST = [f"ds002748_sub-{k}_T1w.nii.gz" for k in (17, 18, 19, 20)]
TUNE = [f"ds002748_sub-{k}_T1w.nii.gz" for k in (15, 16)]
SLICES, CROP = 4, 64
VARIANCE = 0.05
DATA_RANGE = 2.0


def images(names: list[str], slices: int, side: int) -> list[tuple[str, np.ndarray]]:
    """(subject, clean crop on [-1, 1] around the middle of the brain), ``slices`` of them a subject."""
    out = []
    for name in names:
        volume = io.read(SCANS / "mr" / name)
        norm = window_for(volume)
        body = foreground(volume.array, norm.modality)
        where = np.flatnonzero(body.mean((1, 2)) > 0.15)
        for k in where[np.linspace(0, len(where) - 1, slices + 2)[1:-1].round().astype(int)]:
            rows, columns = np.nonzero(body[k])
            image = norm.normalised(volume.array[k]).clip(-1, 1)
            row, column = (
                int(np.clip(np.mean(c) - side // 2, 0, n - side))
                for c, n in zip((rows, columns), image.shape, strict=True)
            )
            out.append((name.split("_")[1], image[row : row + side, column : column + side]))
    return out


def noisy(clean: np.ndarray, k: int) -> np.ndarray:
    """Image k with the noise that is its own."""
    noise = np.random.default_rng([5, k]).standard_normal(clean.shape)
    return (clean + VARIANCE**0.5 * noise).astype(np.float32)


def patches(names: list[str], count: int, side: int) -> list[tuple[str, np.ndarray]]:
    """(subject, clean patch on [-1, 1]) from anywhere in the slices that show the brain, a tenth of it foreground.

    As training draws its patches; ``count`` of them a subject.
    """
    out = []
    for name in names:
        volume = io.read(SCANS / "mr" / name)
        norm = window_for(volume)
        body = foreground(volume.array, norm.modality)
        rng = np.random.default_rng([7, len(out)])
        slices = np.flatnonzero(body.mean((1, 2)) > 0.02)
        while len(out) % count or not out or out[-1][0] != name.split("_")[1]:
            k, row, column = rng.choice(slices), *(rng.integers(n - side + 1) for n in body.shape[1:])
            place = (k, slice(row, row + side), slice(column, column + side))
            if body[place].mean() >= 0.1:
                out.append((name.split("_")[1], norm.normalised(volume.array[place]).clip(-1, 1)))
    return out
