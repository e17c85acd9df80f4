"""What mirror images are worth: PSNR on the rows of the study by ``orientations``, and the error on the repeats.

Run from the checkout, after the study whose noisy scans it takes from runs/real_noise/cache or makes:
    python -m experiments.real_noise.orientations [--model CHECKPOINT] [--only ROW ...]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

import cdm4mi
from cdm4mi.inference.settings import changed
from cdm4mi.models.checkpoint import TrainedModel, load_model
from experiments.real_noise.rows import ROWS, cases, psnr
from experiments.real_noise.study import repeat_judge, table

COUNTS = 1, 2, 4


def asked(model: TrainedModel, **settings: object) -> TrainedModel:
    """The model with other sampling settings for its own."""
    sampling = changed(model.config.sampling, **settings)
    return replace(model, config=model.config.model_copy(update={"sampling": sampling}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = [asked(load_model(options.model), orientations=count, planes=1) for count in COUNTS]
    lines = []
    for row in (ROWS[key] for key in options.only):
        scores: list[list[float]] = [[] for _ in models]
        for of, case in cases(row):
            square = (slice(None), *of.square())
            for found, model in zip(scores, models, strict=True):
                x = cdm4mi.denoise(of.with_array(case.y), model).volume.array
                found.append(psnr(x[square], case.reference[square], of.window))
        lines.append([row.title, *(f"{np.mean(found):.2f}" for found in scores)])
    print("PSNR in dB, mean over the scans, by orientations\n")
    print(table(["", *map(str, COUNTS)], lines))
    errors = [repeat_judge(model)[:2] for model in models]
    print("\nDiffusion MR acquired twice, in one plane: error to the repeat, and with the bias of the repeat's noise\n")
    print(table(["", *map(str, COUNTS)], [["5 volumes", *(f"{a:.1f} / {b:.1f}" for a, b in errors)]]))


if __name__ == "__main__":
    main()
