"""Write the trained model as the one that ships: half-precision weights, configuration and card in one file.

Run from the checkout after training and cdm4mi calibrate: python -m experiments.real_noise.export [CHECKPOINT]
"""

from __future__ import annotations

import sys
from pathlib import Path

from cdm4mi.models.checkpoint import SHIPPED_FILE, load_model, save_model

WEIGHTS = Path("src/cdm4mi/models/weights")


def main() -> None:
    checkpoint = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/real_noise/checkpoints/last.ckpt")
    model = load_model(checkpoint)
    model.config.data.paths = []  # the scans do not ship
    model.config.data.exclude_patients = []
    model.config.data.val_patients = None
    model.config.training.initial_weights = None  # they are in the last weights
    model.config.data.level_map_share = 0.0  # maps came late in its training: it restores better without (README.md)
    card = WEIGHTS / "README.md"
    save_model(model, WEIGHTS / SHIPPED_FILE, card=card.read_text(encoding="utf-8"))
    written = WEIGHTS / SHIPPED_FILE
    print(f"{written}: {written.stat().st_size / 1e6:.2f} MB, weights {load_model().weight_hash[:16]}")


if __name__ == "__main__":
    main()
