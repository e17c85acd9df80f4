"""Restoring a slice: windows against whole slices, bf16 against fp32, by time, memory and what they change.

    python benchmarks/restore.py [--model CHECKPOINT] [--side 512] [--threads 1]

One estimate of the mean a slice; smooth random images with noise of 50 HU. The first row is the one to compare with.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from cdm4mi.inference.compute import dtype_named
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models.checkpoint import load_model

SIGMA, SLICES, RUNS = 0.05, 2, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    rng = np.random.default_rng(0)
    clean = gaussian_filter(rng.standard_normal((SLICES, options.side, options.side)), (0, 6, 6))
    y = (clean / np.abs(clean).max() + SIGMA * rng.standard_normal(clean.shape)).astype(np.float32)
    ways = [(tile, precision) for precision in ("fp32", "bf16") for tile in (options.side, 256, 128)]
    restorers = [SliceRestorer(model, changed(model.config.sampling, tile=tile), "cpu", p) for tile, p in ways]
    took: list[list[float]] = [[] for _ in ways]
    for _ in range(RUNS):  # in turns, so that what else the machine does falls on all alike
        for restorer, seconds in zip(restorers, took, strict=True):
            began = time.perf_counter()
            restorer.moments(y[:1], SIGMA)
            seconds.append(time.perf_counter() - began)
    outs = [restorer.moments(y, SIGMA)[0] for restorer in restorers]
    fastest = str(dtype_named("auto", torch.device("cpu"))).removeprefix("torch.")
    print(f"{model.name}, {options.side} x {options.side}, {options.threads} thread(s); auto is {fastest}")
    for (tile, precision), seconds, out in zip(ways, took, outs, strict=True):
        change = float(np.sqrt(np.mean((out - outs[0]) ** 2)))
        print(
            f"window {tile}, {precision}: {min(seconds):.2f} s a slice, ratio {min(seconds) / min(took[0]):.2f}; "
            f"differs by {change / SIGMA:.1e} of the noise (root mean square)"
        )


if __name__ == "__main__":
    main()
