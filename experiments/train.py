"""Train the models of a study in turn: GROUP/base.yaml with the overrides of GROUP/methods.py, into runs/GROUP/NAME.

Run from the checkout; a stopped run goes on: python -m experiments.train GROUP [NAME ...]
"""

import runpy
import sys
from pathlib import Path

from cdm4mi.config.load import load_config
from cdm4mi.training.run import train
from experiments.shared import moved

group = Path(__file__).parent / sys.argv[1]
METHODS = runpy.run_path(str(group / "methods.py"))["METHODS"]

for name in sys.argv[2:] or METHODS:
    out = Path("runs") / group.name / name
    config = load_config(group / "base.yaml", [*METHODS[name], f"name={name}"])
    config.data.paths = moved(config.data.paths)
    print(name, "->", train(config, out, resume=(out / "checkpoints/last.ckpt").exists()), flush=True)
