"""Patches a second from a store, read as training reads them, against what the network of a preset consumes.

Run: python benchmarks/reading.py [STORE] [--preset precond] [--threads 2]. Without a store, one is made of phantoms.
The bound is 5: reading alone in one process gives at least five times the patches that training on all threads takes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.utils.data import BatchSampler

from cdm4mi.config.load import load_preset
from cdm4mi.config.schema import Config
from cdm4mi.data.pairs import OrderedFrom, Pair
from cdm4mi.data.phantoms import phantom
from cdm4mi.data.prepare import prepare
from cdm4mi.data.tasks import all_scans
from cdm4mi.training.modules import ConditionDDPM
from cdm4mi.training.run import PairData

BOUND = 5.0


def phantom_store(folder: Path) -> Path:
    """A store of three CT and three MR patients, 16 slices of 512 x 512 and 256 x 256 each."""
    for person, (kind, side) in enumerate((("CT", 512), ("MR", 256)) * 3):
        slices = np.stack([phantom(kind, 16 * person + k, side) for k in range(16)])
        noisy = slices + np.random.default_rng(person).normal(0, 10, slices.shape)  # as hard to pack as a scan
        nib.save(nib.Nifti1Image(np.round(noisy).astype(np.int16).T, np.eye(4)), folder / f"sub-{person:02d}.nii.gz")
    prepare(all_scans([folder], folder / "store"), folder / "store")
    return folder / "store"


def made(data: PairData, config: Config) -> Iterator[Pair]:
    """Batches of training pairs without end."""
    return map(data.train_pairs.batch, BatchSampler(OrderedFrom(0), config.training.batch_size, drop_last=False))


def patches_read(data: PairData, config: Config, seconds: float) -> tuple[float, float]:
    """(patches a second of wall clock, of processor time) in batches as training makes them, in this process."""
    loader = made(data, config)
    for _ in range(5):
        next(loader)
    batches, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        next(loader)
        batches += 1
    read = batches * config.training.batch_size
    return read / (time.perf_counter() - wall), read / (time.process_time() - cpu)


def patches_trained(data: PairData, config: Config, seconds: float) -> tuple[float, float]:
    """The same for training steps on batches that are in memory already; processor time by thread."""
    module = ConditionDDPM(config=config)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-4)
    batches = itertools.cycle(list(itertools.islice(made(data, config), 4)))

    def step() -> None:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.training.precision == "bf16"):
            loss = module.losses(batch, *module.draw(batch["x0"], batch["index"])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    steps, wall, cpu = 0, time.perf_counter(), time.process_time()
    while steps < 3 or time.perf_counter() - wall < seconds:
        step()
        steps += 1
    trained = steps * config.training.batch_size
    by_thread = (time.process_time() - cpu) / torch.get_num_threads()
    return trained / (time.perf_counter() - wall), trained / by_thread


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--preset", default="precond")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or phantom_store(Path(folder))
        overrides = ["data.kind=store", f"data.paths={store}", f"training.precision={arguments.precision}"]
        config = load_preset(arguments.preset, overrides)
        data = PairData(config)
        read, trained = (work(data, config, arguments.seconds) for work in (patches_read, patches_trained))
    size = config.model.image_size
    print(f"preset {arguments.preset}, precision {arguments.precision}, patches {size} x {size}, one reading process")
    ratios = [a / b for a, b in zip(read, trained, strict=True)]
    for n, clock in enumerate(("wall clock", "processor time")):
        print(
            f"{clock}: {read[n]:.0f} patches/s read, {trained[n]:.1f} trained on {arguments.threads} threads, "
            f"ratio {ratios[n]:.1f} (bound {BOUND:g})"
        )
    return 0 if ratios[1] >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
