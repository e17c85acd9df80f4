"""Coverage and ranking of the uncertainty on held-out subjects, before and after calibration; prints the record.

Run from the checkout after experiments/paths/train.py and
    cdm4mi calibrate runs/paths/precond --steps 10 --samples 8
    python experiments/uncertainty.py runs/paths/precond --steps 10 --samples 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from cdm4mi import io
from cdm4mi.data.normalise import foreground, normalisation_for
from cdm4mi.inference.calibration import HALF_WIDTH, Calibration
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.measure.metrics import psnr
from cdm4mi.models.checkpoint import load_model

DATA = Path("../shared/data/mr")
TEST = [f"ds002748_sub-{k}_T1w.nii.gz" for k in (17, 18, 19, 20)]
SLICES = 3
TILE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--variances", type=float, nargs="+", default=[0.05])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.checkpoint)
    sampling = changed(
        model.config.sampling, estimate="mean-of-k", steps=options.steps, samples=options.samples, tile=TILE
    )
    restorer = Restorer(model, sampling)
    calibration = Calibration.from_dict(model.about["calibration"])
    if not calibration.fits(restorer.sampling):
        raise SystemExit("the calibration is for other sampling settings")
    print(
        "| variance | subject | PSNR of the mean (dB) | coverage of 90 % intervals, samples | calibrated | rank "
        "correlation with the error, samples | calibrated | mean half width, calibrated |"
    )
    print("|---" * 8 + "|")
    for variance in options.variances:
        level = variance**0.5
        rows = []
        for number, name in enumerate(TEST):
            volume = io.read(DATA / name)
            norm = normalisation_for(volume)
            body = foreground(volume.array, norm.modality)
            where = np.flatnonzero(body.mean((1, 2)) > 0.15)
            chosen = where[np.linspace(0, len(where) - 1, SLICES + 2)[1:-1].round().astype(int)]
            x0 = norm.apply(volume.array[chosen]).clip(-1, 1)
            noise = np.random.default_rng([9, number]).standard_normal(x0.shape)
            y = (x0 + level * noise).astype(np.float32)
            mean, spread = restorer.restore_moments(y, level, seed=number, spacing=volume.spacing)
            inside, error = body[chosen], np.abs(mean - x0)
            told = calibration.apply(spread, level)
            rows.append(
                [
                    np.mean([psnr(a.clip(-1, 1), b, 2.0) for a, b in zip(mean, x0, strict=True)]),
                    *(100 * np.mean(error[inside] <= HALF_WIDTH * s[inside]) for s in (spread, told)),
                    *(spearmanr(error[inside], s[inside]).statistic for s in (spread, told)),
                    HALF_WIDTH * told[inside].mean(),
                ]
            )
            print(_row(variance, name.split("_")[1], rows[-1]), flush=True)
        print(_row(variance, "mean", np.mean(rows, axis=0)), flush=True)


def _row(variance: float, subject: str, values: list[float] | np.ndarray) -> str:
    quality, before, after, rank_before, rank_after, width = values
    return (
        f"| {variance} | {subject} | {quality:.2f} | {before:.1f} % | {after:.1f} % | {rank_before:.3f} "
        f"| {rank_after:.3f} | {width:.4f} |"
    )


if __name__ == "__main__":
    main()
