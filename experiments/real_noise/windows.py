"""Whether the window matters: PSNR by whole slices and by smaller windows, seams, batches; held-out people.

Run from the checkout, after the study whose noisy scans it takes from runs/real_noise/cache or makes:
    python -m experiments.real_noise.windows [--model CHECKPOINT] [--windows N ...] [--only ROW ...]

Seam: how much the difference to whole slices changes from one pixel to the next across the borders of windows, over the
same elsewhere; 1 where there is none. Batch: the greatest change of a pixel, in noise levels, of slices restored in
another order and number at a time.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.inference.tiling import window_starts
from cdm4mi.models.checkpoint import load_model
from experiments.real_noise.rows import ROWS, cases, psnr
from experiments.real_noise.study import table

WHOLE = 512
JUDGED = ("ct-white", "ct-dose-25", "ct-ramp", "t1-rician-9", "t1-zero-filled", "t1-coils")


def seam(difference: np.ndarray, window: int, overlap: float) -> float:
    """Mean change across the borders of windows over that elsewhere, of images (N, rows, columns)."""
    found = []
    for axis in (1, 2):
        length = difference.shape[axis]
        starts = window_starts(length, min(window, length), overlap)
        borders = sorted({edge - 1 for start in starts for edge in (start, start + window) if 0 < edge < length})
        change = np.abs(np.diff(difference, axis=axis)).mean(tuple(k for k in range(3) if k != axis))
        if borders:
            found.append(change[borders].mean() / np.delete(change, borders).mean())
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--windows", nargs="+", type=int, default=[256, 128], help="default: 256 128")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(JUDGED))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    windows, least = options.windows, min(options.windows)
    lines = []
    for key in options.only:
        scores: dict[int, list[float]] = {window: [] for window in (WHOLE, *windows)}
        seams: dict[int, list[float]] = {window: [] for window in windows}
        batches = []
        for of, case in cases(ROWS[key]):
            volume = of.with_array(case.y)
            rows, columns = of.square()
            restored = {}
            for window in scores:
                restorer = Restorer(model, changed(model.config.sampling, tile=window), "cpu", "auto")
                restored[window] = restorer.restore(volume).volume.array
                x, reference = restored[window][:, rows, columns], case.reference[:, rows, columns]
                scores[window].append(psnr(x, reference, of.window))
                if window != WHOLE and max(volume.shape[1:]) > window:
                    seams[window].append(
                        seam(restored[window] - restored[WHOLE], restorer.slices.tile, restorer.slices.sampling.overlap)
                    )
            again = Restorer(model, changed(model.config.sampling, tile=least), "cpu", "auto")
            again.slices.pixels_at_a_time = least * least  # one window at a time
            other = again.restore(volume, batch=1).volume.array
            batches.append(float(np.abs(other - restored[least]).max()) / case.sigma)
        shown = {window: f"{np.mean(values):.2f}" if values else "" for window, values in seams.items()}
        lines.append(
            [
                ROWS[key].title,
                *(f"{np.mean(scores[window]):.3f}" for window in scores),
                f"{max(np.mean(s) for s in scores.values()) - min(np.mean(s) for s in scores.values()):.3f}",
                *shown.values(),
                f"{max(batches):.1e}",
            ]
        )
    print("PSNR in dB, mean over the scans; seam; batch\n")
    heads = ["", "whole", *map(str, windows), "range", *(f"seam, {w}" for w in windows), "batch"]
    print(table(heads, lines))


if __name__ == "__main__":
    main()
