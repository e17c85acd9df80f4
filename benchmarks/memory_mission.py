"""Peak memory of training the mission's model on the CPU: channel 64, 64 x 64, batch 16, bf16, on phantoms.

Run from the checkout:  python benchmarks/memory_mission.py --steps 3
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import tempfile
from pathlib import Path

import torch

from cdm4mi.config.load import load_preset
from cdm4mi.data import sources
from cdm4mi.training.run import train

LIMIT_GIB = 6.0


def peak_gib() -> float:
    """Most memory that the process ever held, GiB (Linux counts KiB, macOS bytes)."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2 ** (30 if sys.platform == "darwin" else 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=["32", "bf16"])
    arguments = parser.parse_args()
    sources.PHANTOM_PATIENTS = 4  # enough pairs for some steps, drawn in a second
    config = load_preset(
        "mission",
        [
            "data.kind=phantoms",
            "data.val_patches=16",
            f"training.precision={arguments.precision}",
            f"training.max_tsteps={arguments.steps}",
            f"training.val_every={arguments.steps}",
            "training.log_every=1",
        ],
    )
    unet, training = config.model.unet_rosinality_config, config.training
    print(
        f"channel {unet.channel} x {unet.channel_multiplier}, {config.model.image_size} x {config.model.image_size}, "
        f"batch {training.batch_size}, {training.precision}, {torch.get_num_threads()} threads"
    )
    idle = peak_gib()
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder), progress=False)
        with next(Path(folder).rglob("metrics.csv")).open() as file:
            rates = [float(row["train/images_per_second"]) for row in csv.DictReader(file) if row["train/loss"]]
    print(f"{arguments.steps} steps and a validation; the fastest step took {training.batch_size / max(rates):.1f} s")
    print(f"peak process memory {peak_gib():.2f} GiB ({idle:.2f} before training), limit {LIMIT_GIB:.0f}")
    return 0 if peak_gib() < LIMIT_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
