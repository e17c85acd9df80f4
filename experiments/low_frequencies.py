"""What --keep-low-frequencies changes: error, and the shift of the mean by tissue, on a head CT that no model has seen.

Run from the checkout (one thread):
    python -m experiments.low_frequencies [--model shipped] [--dose 0.25]

The scan at a part of its dose (simulated counts and filtered backprojection), restored blind. PSNR for a range of 2000
HU in the patient; shifts are means of restored - reference over the pixels of a tissue in the reference, HU. The last
column is the shift of 32 x 32 means: the root mean square over all squares in the patient.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.models.checkpoint import load_model
from experiments.real_noise.noises import simulated
from experiments.real_noise.scans import scan
from experiments.real_noise.study import tissue_errors

CUTOFFS = (None, 0.01, 0.02, 0.03, 0.05)
SQUARE = 32
TISSUES = ("fat", "soft", "bone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shipped", help="a checkpoint, or shipped")
    parser.add_argument("--scan", default="head CT", help="a CT of experiments/real_noise/scans.py")
    parser.add_argument("--dose", type=float, default=0.25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    of = scan(options.scan)
    case = simulated(of, 0, type="low_dose_ct", dose=options.dose)
    y = of.with_array(case.y)
    print(f"| kept up to, cycles a pixel | put back, HU | PSNR, dB | {', '.join(TISSUES)}: shift, HU | squares, HU |")
    print("|---|---|---|---|---|")
    rows: list[tuple[str, np.ndarray]] = [("the noisy scan |", y.array)]
    for cutoff in CUTOFFS:
        sampling = changed(model.config.sampling, keep_low_frequencies=cutoff)
        found = Restorer(model, sampling).restore(y)
        kept = found.record.kept_frequencies
        name = "nothing" if kept is None else f"{kept.cycles_per_pixel:.2f}"
        rows.append((f"{name} | {'' if kept is None else f'{kept.put_back:.2f}'}", found.volume.array))
    for name, x in rows:
        error = (x - case.reference)[of.body]
        psnr = 20 * np.log10(2000 / np.sqrt(np.square(error, dtype=np.float64).mean()))
        shifts = tissue_errors(x, case.reference, of.window)
        text = ", ".join(f"{shifts[tissue]:+.2f}" for tissue in TISSUES if tissue in shifts)
        print(f"| {name} | {psnr:.2f} | {text} | {squares(x, case.reference, of.body):.2f} |")


def squares(x: np.ndarray, reference: np.ndarray, body: np.ndarray) -> float:
    """Root mean square over the squares in the patient of the mean error of each."""
    rows, columns = (n // SQUARE * SQUARE for n in x.shape[1:])
    shape = (len(x), rows // SQUARE, SQUARE, columns // SQUARE, SQUARE)
    errors, inside = ((a[:, :rows, :columns]).reshape(shape) for a in (x - reference, body))
    return float(np.sqrt(np.square(errors.mean((2, 4))[inside.all((2, 4))]).mean()))


if __name__ == "__main__":
    main()
