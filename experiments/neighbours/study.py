"""What neighbouring slices bring (2.5-D): two networks trained alike, one of which sees a slice on either side.

Run from the checkout, after python -m experiments.train neighbours (half an hour of a core each):
    python -m experiments.neighbours.study

On slabs of people that neither was trained on: PSNR of the foreground and flicker, the change of the error's block
means from slice to slice (``cdm4mi.measure.flicker``), in percent of the window's upper end. The error of white noise
that is independent in the slices, averaged over blocks, is the noisy scan's flicker.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import cdm4mi
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.degradation import Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.intensity import foreground, window_for
from cdm4mi.io import Volume, read
from cdm4mi.measure.flicker import flicker
from cdm4mi.models.checkpoint import load_model
from experiments.neighbours.methods import METHODS
from experiments.real_noise.study import table
from experiments.shared import SCANS

RUNS = Path("runs/neighbours")
SUBJECTS = ("sub-17", "sub-18", "sub-19", "sub-20")
SLAB = slice(84, 100)
VARIANCES = (0.01, 0.05)


def slab(subject: str) -> tuple[Volume, Frame]:
    """Slices in the middle of a head, and what [-1, 1] means in it."""
    scan = read(SCANS / "mr" / f"ds002748_{subject}_T1w.nii.gz")
    window = window_for(scan)
    return Volume(scan.array[SLAB], scan.affine, "MR"), Frame.of(window, scan.spacing[1:])


def main() -> None:
    torch.set_num_threads(1)
    models = {name: load_model(RUNS / name / "checkpoints" / "last.ckpt") for name in METHODS}
    lines = []
    for variance in VARIANCES:
        noise = noise_from_spec("gaussian", {"variance": variance})
        found: dict[str, list[tuple[float, float]]] = {}
        for number, subject in enumerate(SUBJECTS):
            clean, frame = slab(subject)
            x0 = torch.from_numpy(frame.normalised(clean.array).astype(np.float32))
            images = [
                noise.apply(image, noise.draw(generator(0)), generator(number, k), frame) for k, image in enumerate(x0)
            ]
            noisy = clean.with_array(frame.physical(torch.stack(images).numpy()))
            inside = foreground(clean.array, "MR")
            outputs = {name: cdm4mi.denoise(noisy, model).volume.array for name, model in models.items()}
            for name, x in {"noisy": noisy.array, **outputs}.items():
                error = (frame.normalised(x) - frame.normalised(clean.array))[inside]
                psnr = 10 * np.log10(4 / np.mean(np.square(error, dtype=np.float64)))
                change = 100 * flicker(x, clean.array, inside) / frame.high
                found.setdefault(name, []).append((float(psnr), change))
        for name, scores in found.items():
            psnr, change = np.mean(scores, axis=0)
            lines.append([f"{variance:g}", name, f"{psnr:.2f}", f"{change:.3f}"])
    print(table(["variance", "", "PSNR, dB", "flicker, %"], lines))


if __name__ == "__main__":
    main()
