"""What less strength costs: PSNR on the rows of the study.

Run from the checkout, after the study whose noisy scans it takes from runs/real_noise/cache or makes:
    python -m experiments.real_noise.strength [--model CHECKPOINT] [--only ROW ...]

``lesions.py`` says what it is worth to small lesions. Beside: a blend with the noisy scan, and the best of the tuned
classical methods.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import cdm4mi
from cdm4mi.inference.strength import weakened
from cdm4mi.models.checkpoint import load_model
from experiments.real_noise.lesions import BLENDED, STRENGTHS
from experiments.real_noise.rows import METHODS, ROWS, cases, classical, psnr
from experiments.real_noise.study import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    lines = []
    for row in (ROWS[key] for key in options.only):
        scores: dict[str, list[float]] = {}
        for of, case in cases(row):
            square = (slice(None), *of.square())
            restored = cdm4mi.denoise(of.with_array(case.y), model).volume.array
            found = {f"{strength:g}": weakened(restored, case.y, strength) for strength in reversed(STRENGTHS)}
            found[f"blend, {BLENDED:g}"] = case.y + BLENDED * (restored - case.y)
            for name, x in found.items():
                scores.setdefault(name, []).append(psnr(x[square], case.reference[square], of.window))
        others = [score for method in METHODS if (score := classical(row, method)) is not None]
        lines.append([row.title, *(f"{np.mean(values):.2f}" for values in scores.values()), f"{max(others):.2f}"])
    print("PSNR in dB, mean over the scans, by strength\n")
    print(table(["", *scores, "best classical"], lines))


if __name__ == "__main__":
    main()
