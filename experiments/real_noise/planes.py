"""What restoring a volume in three planes is worth: PSNR on the T1 rows of the study, whose voxels are near cubes, with
noise over a block of 48 slices and more; and the error on the repeats. The same slices are judged as in the study.

Run from the checkout, after the study, whose tuned settings it takes from runs/real_noise/cache or finds. BM4D
(Maggioni et al. 2013) takes ``pip install bm4d``, whose licence forbids commercial use, and an hour; it is kept too:
    python -m experiments.real_noise.planes [--model CHECKPOINT] [--only ROW ...] [--methods nlm bm3d bm4d]
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from zlib import crc32

import numpy as np
import torch

import cdm4mi
from cdm4mi.io import Volume
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.models.checkpoint import TrainedModel, load_model
from experiments.real_noise.noises import MAKERS, Noisy
from experiments.real_noise.orientations import asked
from experiments.real_noise.rows import ROWS, TUNE_SIDE, Row, denoised, kept, psnr, tuned, unbiased
from experiments.real_noise.scans import MARGIN, REVERSED, T1, TUNE, Scan, block
from experiments.real_noise.study import repeat_judge, table

ON = [key for key, row in ROWS.items() if row.scans in (T1, REVERSED)]
PLANES = 1, 3
STEPS = 1, 2, 3
METHODS = "nlm", "bm3d", "bm4d"
FACTORS = 0.7, 0.85, 1.0, 1.15, 1.3, 1.6, 2.0
"""Of the noise level that BM4D is told, tuned."""
BESIDE = 8
"""Slices on each side that BM4D sees; it is slow."""


def noisy_block(row: Row, name: str) -> tuple[Scan, Noisy, list[int]]:
    """A block of slices with a row's noise, and those that are judged."""
    of, index = block(name)
    make, keys = row.noise
    return of, MAKERS[make](of, crc32(f"block {row.key} {name}".encode()), **keys), index


def bm4d_around(y: np.ndarray, k: int, square: tuple[slice, slice], sigma: float) -> np.ndarray:
    """Slice ``k`` of a block by BM4D, its square; what is seen beside it is ``BESIDE`` slices and ``MARGIN`` pixels."""
    from bm4d import bm4d

    first = max(0, k - BESIDE)
    rows, columns = (slice(side.start - MARGIN, side.stop + MARGIN) for side in square)
    seen = y[first : k + BESIDE + 1, rows, columns].astype(np.float32)
    return np.asarray(bm4d(seen, sigma))[k - first, MARGIN:-MARGIN, MARGIN:-MARGIN]


def bm4d_settings(row: Row) -> tuple[float, int]:
    """The factor of the measured level, and whether the bias of magnitudes is taken away, best on other scans."""

    def search() -> dict[str, float]:
        scores: dict[tuple[float, int], list[float]] = {}
        for name in TUNE["MR"]:
            of, case, (k, *_) = noisy_block(row, name)
            square = of.square(side=TUNE_SIDE)
            sigma = estimate_noise(case.y).sigma
            for factor in FACTORS:
                x = bm4d_around(case.y, k, square, factor * sigma)
                for n, out in enumerate((x, unbiased(x, sigma)) if row.magnitude else (x,)):
                    scores.setdefault((factor, n), []).append(psnr(out, case.reference[(k, *square)], of.window))
        factor, n = max(scores, key=lambda at: sum(scores[at]))
        return {"factor": factor, "unbiased": n}

    found = kept(search, "bm4d settings", row.key, BESIDE, FACTORS)
    return float(found["factor"]), int(found["unbiased"])


def classical(row: Row, name: str, method: str) -> float:
    """PSNR of a method on the judged slices of a block, at the measured level."""

    def judge() -> dict[str, float]:
        of, case, index = noisy_block(row, name)
        sigma, square = estimate_noise(case.y).sigma, of.square()
        if method == "bm4d":
            factor, lifted = bm4d_settings(row)
            x = np.stack([bm4d_around(case.y, k, square, factor * sigma) for k in index])
            x = unbiased(x, sigma) if lifted else x
        else:
            x = denoised(method, tuned(row, method), of, case.y[index], sigma)
        return {"psnr": psnr(x, case.reference[(index, *square)], of.window)}

    return float(kept(judge, "block", row.key, name, method)["psnr"])


def restored(row: Row, name: str, models: list[TrainedModel]) -> list[float]:
    """PSNR of the judged slices of a block that each model restored as a scan."""
    of, case, index = noisy_block(row, name)
    at = (index, *of.square())
    out = []
    for model in models:
        x = cdm4mi.denoise(of.with_array(case.y), model).volume.array
        out.append(psnr(x[at], case.reference[at], of.window))
    return out


def thinned(models: list[TrainedModel], step: int) -> list[float]:
    """PSNR of every ``step``-th slice of a block with Rician noise, restored as a scan of that spacing."""
    of, case, index = noisy_block(ROWS["t1-rician-9"], T1[0])
    first = index[0] % step
    affine = of.volume.affine @ np.diag([1, 1, step, 1])
    scan = Volume(case.y[first::step].astype(np.float32), affine, "MR")
    k, square = index[0] // step, of.square()
    truth = case.reference[(index[0], *square)]
    return [psnr(cdm4mi.denoise(scan, model).volume.array[(k, *square)], truth, of.window) for model in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--only", nargs="+", choices=ON, default=ON)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    models = [asked(model, planes=count) for count in PLANES]
    methods = [name for name in options.methods if name == "nlm" or find_spec(name)]
    lines = []
    for row in (ROWS[key] for key in options.only):
        peers = [np.mean([classical(row, name, method) for name in row.scans]) for method in methods]
        own = np.mean([restored(row, name, models) for name in row.scans], axis=0)
        lines.append([row.title, *(f"{score:.2f}" for score in (*peers, *own))])
        print(" | ".join(lines[-1]), flush=True)
    print("\nPSNR in dB, mean over the scans\n")
    print(table(["", *(method.upper() for method in methods), "one plane", "three planes"], lines))
    lines = [[f"{step} mm", *(f"{score:.2f}" for score in thinned(models, step))] for step in STEPS]
    print(f"\nEvery n-th slice of {T1[0]}, of 0.87 mm pixels, in Rician noise of 9 %, by the distance of slices\n")
    print(table(["", "one plane", "three planes"], lines))
    errors = [repeat_judge(model)[:2] for model in models]
    print("\nDiffusion MR acquired twice: error to the repeat, and with the bias of the repeat's noise\n")
    print(table(["", "one plane", "three planes"], [["5 volumes", *(f"{a:.1f} / {b:.1f}" for a, b in errors)]]))


if __name__ == "__main__":
    main()
