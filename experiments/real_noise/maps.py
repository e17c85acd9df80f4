"""What a map of the noise level is worth to a model: PSNR of validation pairs with the map, and with one level a patch.

Run from the checkout: python -m experiments.real_noise.maps [--model CHECKPOINT] [--pairs 192]

The relative level of the map is given to the power of 0 (one level), 0.5 and 1 (the map).
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch

from cdm4mi.config import load_config
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.run import PairData
from experiments.real_noise.study import table

POWERS = (0.0, 0.5, 1.0)
SPREADS = (0.0, 0.1, 0.25, 1.0)
"""Standard deviation of the relative level over a patch, the bounds of the rows."""
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--pairs", type=int, default=192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    pairs = PairData(load_config("experiments/real_noise/base.yaml")).val_pairs
    scores: dict[float, list[torch.Tensor]] = {power: [] for power in POWERS}
    spreads = []
    with torch.inference_mode():
        for first in range(0, options.pairs, BATCH):
            batch = pairs.batch(range(first, min(first + BATCH, options.pairs)))
            spreads.append(batch["relative_level"].std((1, 2, 3)))
            for power in POWERS:
                given = batch | {"relative_level": batch["relative_level"] ** power}
                x = model.process.mean(model.network, model.process.condition_of(given))
                scores[power].append(10 * torch.log10(4 / (x - batch["x0"]).square().mean((1, 2, 3))))
    spread = torch.cat(spreads)
    rows = []
    for low, high in pairwise(SPREADS):
        here = (spread >= low) & (spread < high)
        means = [f"{float(torch.cat(scores[power])[here].mean()):.2f}" for power in POWERS]
        rows.append([f"{low:g} to {high:g}", str(int(here.sum())), *means])
    print(table(["spread of the level", "pairs", "one level", "half the map", "the map"], rows))


if __name__ == "__main__":
    main()
