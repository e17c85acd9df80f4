"""Coverage and ranking of the uncertainty on held-out subjects, before and after calibration; prints the record.

Run from the checkout with a run that was calibrated for these settings:
    cdm4mi calibrate runs/white_noise/longer
    python -m experiments.uncertainty runs/white_noise/longer

A single error says little of its own deviation: errors drawn with exactly the deviations that the map tells would rank
with them as the column "if the deviation were exact" says.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.stats import spearmanr

from cdm4mi import io
from cdm4mi.inference.calibration import HALF_WIDTH, calibrated, fits
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.intensity import foreground, window_for
from cdm4mi.models.checkpoint import load_model
from experiments.shared import SCANS

GROUPS = {
    "T1 brains (sub-17 to sub-20)": [f"mr/ds002748_sub-{k}_T1w.nii.gz" for k in (17, 18, 19, 20)],
    "head CT (no CT in the calibration)": ["dicom/ge_head_ct_uneven"],
}
VARIANCES = (0.01, 0.05, 0.1, 0.2)
CROPS, SIDE, REGION = 3, 128, 8


def crops(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Clean crops (N, SIDE, SIDE) on [-1, 1] around the middle of the body, and their foreground."""
    volume = io.read(SCANS / path)
    norm = window_for(volume)
    body = foreground(volume.array, norm.modality)
    where = np.flatnonzero(body.mean((1, 2)) > 0.15)
    images, masks = [], []
    for k in where[np.linspace(0, len(where) - 1, CROPS + 2)[1:-1].round().astype(int)]:
        starts = [
            int(np.clip(np.mean(c) - SIDE // 2, 0, n - SIDE))
            for c, n in zip(np.nonzero(body[k]), body[k].shape, strict=True)
        ]
        place = tuple(slice(s, s + SIDE) for s in starts)
        images.append(norm.normalised(volume.array[k]).clip(-1, 1)[place])
        masks.append(body[k][place])
    return np.stack(images), np.stack(masks)


def regions(squares: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Root mean square over each square region that lies inside, (M,)."""
    n, rows, columns = squares.shape
    shape = (n, rows // REGION, REGION, columns // REGION, REGION)
    whole = inside.reshape(shape).all((2, 4))
    return np.sqrt(squares.reshape(shape).mean((2, 4)))[whole]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.checkpoint)
    way = {"estimate": "mean-of-k", "steps": options.steps, "samples": options.samples, "tile": SIDE}
    restorer = SliceRestorer(model, changed(model.config.sampling, **way))
    calibration = model.about.calibration
    if calibration is None or not fits(calibration, restorer.sampling):
        raise SystemExit("the calibration is for other sampling settings")
    print(f"{CROPS} crops of {SIDE} x {SIDE} a subject; foreground voxels; regions of {REGION} x {REGION} inside it\n")
    heads = ["scans", "variance", "coverage of 90 % intervals: samples", "calibrated", "half width, calibrated"]
    heads += ["rank correlation of voxel's error and deviation: samples", "calibrated", "if the deviation were exact"]
    heads += ["region's, calibrated"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for group, paths in GROUPS.items():
        clean, inside = (np.concatenate(parts) for parts in zip(*map(crops, paths), strict=True))
        pooled = []
        for variance in VARIANCES:
            noise = np.random.default_rng([9, round(variance * 1e4)]).standard_normal(clean.shape)
            y = (clean + variance**0.5 * noise).astype(np.float32)
            mean, spread = restorer.moments(y, variance**0.5, seed=3)
            pooled.append(
                (np.abs(mean - clean), spread, calibrated(calibration, spread, variance**0.5, "white"), inside)
            )
            report(group, str(variance), *pooled[-1])
        report(group, "all", *(np.concatenate(parts) for parts in zip(*pooled, strict=True)))


def report(
    group: str, variance: str, error: np.ndarray, spread: np.ndarray, told: np.ndarray, inside: np.ndarray
) -> None:
    """One row of the table."""
    e, s, c = error[inside], spread[inside], told[inside]
    cells = [
        *(f"{100 * np.mean(e <= HALF_WIDTH * d):.1f} %" for d in (s, c)),
        f"{HALF_WIDTH * c.mean():.4f}",
        *(f"{spearmanr(e, d).statistic:.3f}" for d in (s, c)),
        f"{spearmanr(np.abs(np.random.default_rng(0).standard_normal(c.shape)) * c, c).statistic:.3f}",
        f"{spearmanr(regions(error**2, inside), regions(told**2, inside)).statistic:.3f}",
    ]
    print(f"| {group} | {variance} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
