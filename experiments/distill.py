"""Distils the default model of experiments/paths to two calls, and measures teacher and student side by side.

Run from the checkout after experiments/train.py paths default; a stopped training goes on:
    python -m experiments.distill train
    python -m experiments.distill measure
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.measure.metrics import psnr, ssim
from cdm4mi.measure.spectrum import spectrum_error
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.distill import distill, student_config
from experiments.crops import CROP, DATA_RANGE, SLICES, TEST, VARIANCE, images, noisy

TEACHER = Path("runs/paths/default/checkpoints/last.ckpt")
STUDENT = Path("runs/distilled")
STEPS = 900
SEED = 11

TEACHERS: dict[str, dict[str, Any]] = {
    "one-call mean": {"estimate": "mean"},
    "2 calls, ddim, eta 0, trailing": {"solver": "ddim", "eta": 0.0, "spacing": "trailing", "steps": 2},
    "2 calls, ddim, eta 1, linspace": {"solver": "ddim", "eta": 1.0, "spacing": "linspace", "steps": 2},
    "10 calls, ddim, eta 0, trailing": {"solver": "ddim", "eta": 0.0, "spacing": "trailing", "steps": 10},
    "10 calls, ddim, eta 1, linspace": {"solver": "ddim", "eta": 1.0, "spacing": "linspace", "steps": 10},
    "10 calls, dpmpp_2m, logsnr": {"solver": "dpmpp_2m", "spacing": "logsnr", "steps": 10},
}
TARGET = "10 calls, dpmpp_2m, logsnr"


def train() -> None:
    """Train the student, or go on."""
    teacher = load_model(TEACHER)
    config = student_config(teacher, STEPS, 2)
    resume = (STUDENT / "checkpoints" / "last.ckpt").exists()
    print(distill(teacher, STUDENT, config, resume=resume), flush=True)


def measure() -> None:
    """A table, means over the test images; "to the teacher" compares samples of the same noise field."""
    test = images(TEST, SLICES, CROP)
    x0 = np.stack([image for _, image in test])
    y = np.stack([noisy(image, k) for k, image in enumerate(x0)])

    def run(checkpoint: Path, way: dict[str, Any]) -> tuple[np.ndarray, float]:
        model = load_model(checkpoint)
        sampling = model.config.sampling.model_copy(update={"estimate": "sample", "clip": False, "tile": CROP} | way)
        restorer = SliceRestorer(model, sampling)
        began = time.process_time()
        out = restorer.restore(y, VARIANCE**0.5, seed=SEED)
        return out.clip(-1, 1), (time.process_time() - began) / len(y)

    outs = {f"teacher, {name}": run(TEACHER, way) for name, way in TEACHERS.items()}
    student = STUDENT / "checkpoints" / "last.ckpt"
    outs["student, one-call mean"] = run(student, {"estimate": "mean"})
    outs["student, 2 calls"] = run(student, {})
    target = outs[f"teacher, {TARGET}"][0]
    print("| model, calls | PSNR (dB) | SSIM | spectrum error (dB) | PSNR to the teacher's (dB) | CPU s an image |")
    print("|---|---|---|---|---|---|")
    for name, (out, seconds) in outs.items():
        figures = [
            np.mean([measured(a, b) for a, b in zip(out, x0, strict=True)])
            for measured in (lambda a, b: psnr(a, b, DATA_RANGE), lambda a, b: ssim(a, b, DATA_RANGE), spectrum_error)
        ]
        near = np.mean([psnr(a, b, DATA_RANGE) for a, b in zip(out, target, strict=True)])
        print(
            f"| {name} | {figures[0]:.2f} | {figures[1]:.3f} | {figures[2]:.2f} | {near:.2f} | {seconds:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "measure": measure}[sys.argv[1]]()
