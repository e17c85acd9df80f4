"""Quality against cost of networks for real noise: one call at the true level on the validation scans, and its time.

Run from the checkout (one thread): python -m experiments.real_noise.front RUN [RUN ...]

The runs are trainings of base.yaml with other networks or losses, stopped after equal numbers of patches.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from cdm4mi.degradation.base import measured_correlations
from cdm4mi.models.checkpoint import TrainedModel
from experiments.real_noise.rows import ROWS, Row, noisy, psnr
from experiments.real_noise.scans import TUNE, scan
from experiments.real_noise.study import loaded, table

JUDGED = (
    "ct-white",
    "ct-ramp",
    "t1-white",
    "t1-rician-3",
    "t1-rician-9",
    "t1-rician-15",
    "t1-zero-filled",
    "t1-coils",
    "t1-smoothed",
    "reversed-rician-9",
)
SIDE, SLICE = 128, 512
"""Pixels of the squares that are judged, and of the slice that is timed."""


@torch.inference_mode()
def decibel(model: TrainedModel, row: Row) -> float:
    """PSNR of the estimate by one call, mean over the validation scans of a row's modality."""
    scores = []
    for name in TUNE[row.modality]:
        of = scan(f"reversed {name}" if row.key.startswith("reversed") else name)
        case, square = noisy(row.noise, of), (slice(None), *of.square(side=SIDE))
        y = torch.from_numpy(of.window.normalised(case.y[square]).astype(np.float32))[:, None]
        sigma = torch.full((len(y),), case.sigma * of.window.scale)
        bright = row.magnitude and float(case.reference[square].max())
        texture = torch.tensor([[*correlations(case.y[square], case.reference[square], bright), float(row.magnitude)]])
        cond = model.process.condition(y, sigma, texture=texture.float().expand(len(y), -1))
        x = model.process.mean(model.network, cond)[:, 0].numpy()
        scores.append(psnr(of.window.physical(x), case.reference[square], of.window))
    return float(np.mean(scores))


def correlations(y: np.ndarray, reference: np.ndarray, bright: float) -> tuple[float, float]:
    """Of neighbouring pixels' noise (next row, next column); of a magnitude in its bright tissue alone."""
    noise = y - reference
    if bright:
        noise = np.where(reference > 0.3 * bright, noise, 0)
    return measured_correlations(torch.zeros(noise.shape), torch.from_numpy(noise))


@torch.inference_mode()
def seconds(model: TrainedModel) -> float:
    """Processor seconds of one call for a whole slice, the least of three."""
    channels = model.network.diffusion_model.in_channel
    x = torch.randn(1, channels, SLICE, SLICE).to(memory_format=torch.channels_last)
    took = []
    for _ in range(3):
        began = time.process_time()
        model.network.diffusion_model(x, torch.tensor([model.process.path.timesteps - 1]))
        took.append(time.process_time() - began)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of runs, checkpoints, or shipped")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for title, model in loaded(options.runs).items():
        million = sum(p.numel() for p in model.network.parameters()) / 1e6
        scores = [decibel(model, ROWS[key]) for key in JUDGED]
        cells = [title, f"{million:.2f}", f"{seconds(model):.2f}", f"{np.mean(scores):.2f}"]
        lines.append(cells + [f"{score:.2f}" for score in scores])
    heads = ["network", "million parameters", f"s a call, {SLICE} x {SLICE}", "mean dB"]
    print(table(heads + [ROWS[key].title for key in JUDGED], lines))


if __name__ == "__main__":
    main()
