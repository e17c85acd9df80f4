"""Train the compared models in turn; a stopped run goes on: python experiments/paths/train.py [METHOD ...]."""

import sys
from pathlib import Path

from methods import METHODS

from cdm4mi.config.load import load_config
from cdm4mi.training.run import train

for name in sys.argv[1:] or METHODS:
    out = Path("runs/paths") / name
    config = load_config(Path(__file__).parent / "base.yaml", [*METHODS[name], f"name={name}"])
    print(name, "->", train(config, out, resume=(out / "checkpoints/last.ckpt").exists()), flush=True)
