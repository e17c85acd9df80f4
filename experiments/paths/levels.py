"""A model told the noise level and trained on a range of it, against one of a single level: prints the table.

Run from the checkout after experiments/train.py paths: python -m experiments.paths.levels
"""

from __future__ import annotations

import numpy as np
import torch

from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.measure.metrics import mae, psnr, ssim
from cdm4mi.models.checkpoint import load_model
from experiments.crops import CROP, DATA_RANGE, SLICES, TEST, VARIANCE, images
from experiments.paths.study import RUNS

VARIANCES = (0.01, 0.05, 0.1, 0.2)
SIDE = 2 * CROP
MODELS = {
    "trained at 0.05, told the true level": ("precond-75", None),
    "trained at 0.05, told 0.05": ("precond-75", VARIANCE),
    "trained at 0.0064 to 0.25, told the true level": ("range", None),
}


def main() -> None:
    torch.set_num_threads(1)
    test = images(TEST, SLICES, SIDE)
    print("PSNR (dB, range 2) / SSIM / MAE of the one-call mean,", end=" ")
    print(f"{len(TEST)} subjects, {SLICES} crops of {SIDE} x {SIDE} each\n")
    print("| model | " + " | ".join(f"variance {v}" for v in VARIANCES) + " |")
    print("|---" * (len(VARIANCES) + 1) + "|")
    noisy = {}
    for v in VARIANCES:
        draws = [
            np.random.default_rng([6, k, round(v * 1e4)]).standard_normal(x0.shape) for k, (_, x0) in enumerate(test)
        ]
        noisy[v] = np.stack([x0 + v**0.5 * n for (_, x0), n in zip(test, draws, strict=True)]).astype(np.float32)
    print("| noisy input | " + " | ".join(figures(noisy[v], test) for v in VARIANCES) + " |")
    for label, (name, told) in MODELS.items():
        model = load_model(RUNS / name / "checkpoints" / "last.ckpt")
        restorer = SliceRestorer(model, model.config.sampling.model_copy(update={"estimate": "mean", "tile": SIDE}))
        cells = [figures(restorer.restore(noisy[v], (told or v) ** 0.5), test) for v in VARIANCES]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def figures(out: np.ndarray, test: list[tuple[str, np.ndarray]]) -> str:
    """Means over a subject's images, then over the subjects."""
    by_subject: dict[str, list[tuple[float, float, float]]] = {}
    for image, (subject, x0) in zip(out.clip(-1, 1), test, strict=True):
        row = (psnr(image, x0, DATA_RANGE), ssim(image, x0, DATA_RANGE), mae(image, x0))
        by_subject.setdefault(subject, []).append(row)
    p, s, m = np.mean([np.mean(rows, axis=0) for rows in by_subject.values()], axis=0)
    return f"{p:.2f} / {s:.3f} / {m:.4f}"


if __name__ == "__main__":
    main()
