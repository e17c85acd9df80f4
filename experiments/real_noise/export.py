"""Write the trained model as the one that ships: half-precision weights, configuration and card in one file.

Run from the checkout after training and cdm4mi calibrate:
    python -m experiments.real_noise.export [CHECKPOINT]
    cdm4mi lesion-test HEAD_CT --model src/cdm4mi/models/weights/base.safetensors --keep
    python -m experiments.real_noise.export --card      # the card alone anew: all else stays as it is
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cdm4mi.models.checkpoint import SHIPPED_FILE, load_model, save_model

WEIGHTS = Path("src/cdm4mi/models/weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("runs/real_noise/checkpoints/last.ckpt"))
    parser.add_argument("--card", action="store_true", help="write the card of the model that ships anew")
    options = parser.parse_args()
    written = WEIGHTS / SHIPPED_FILE
    model = load_model(written if options.card else options.checkpoint)
    model.config.data.paths = []  # the scans do not ship
    model.config.data.exclude_patients = []
    model.config.data.val_patients = None
    model.config.training.initial_weights = None  # they are in the last weights
    model.config.data.level_map_share = 0.0  # maps came late in its training: it restores better without (README.md)
    save_model(model, written, card=(WEIGHTS / "README.md").read_text(encoding="utf-8"))
    print(f"{written}: {written.stat().st_size / 1e6:.2f} MB, weights {load_model().weight_hash[:16]}")


if __name__ == "__main__":
    main()
