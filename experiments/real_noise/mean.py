"""The mean of the weights of two trainings, one of which began with those of the other.

Run from the checkout: python -m experiments.real_noise.mean FIRST SECOND.ckpt RUN [--share 0.5]

share: of the second, 0 to 1. FIRST may be the model that ships (shipped).
Writes RUN/checkpoints/last.ckpt, the second with these weights and with what both have read, and its configuration
beside it. The mean has most of what either can do better (Wortsman et al. 2022, arXiv 2109.01903, who mix the weights
before and after fine-tuning).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from cdm4mi.models.checkpoint import load_model
from cdm4mi.models.ckpt_file import read_ckpt
from cdm4mi.models.torch_file import save_torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--share", type=float, default=0.5)
    options = parser.parse_args()
    models = [load_model(file) for file in (options.first, options.second)]
    first, second = (model.network.state_dict() for model in models)
    checkpoint = read_ckpt(options.second)
    averages = checkpoint["ema"]["weights"]
    for name in averages:
        averages[name] = torch.lerp(first[name], second[name], options.share)
    seen = models[1].about.data.after(models[0].about.data)
    checkpoint["cdm4mi"]["data"] = seen.model_dump(mode="json")
    out = options.run / "checkpoints" / "last.ckpt"
    out.parent.mkdir(parents=True)
    save_torch(checkpoint, out)
    shutil.copy(options.second.parents[1] / "config.yaml", options.run)
    print(f"{out}: weights {load_model(out).weight_hash[:16]}")


if __name__ == "__main__":
    main()
