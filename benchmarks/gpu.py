"""What a GPU does with the shipped model and with training: everything that the project says of one, in one command.

    python benchmarks/gpu.py                             # on the first CUDA GPU, under five minutes
    python benchmarks/gpu.py --device cpu --small        # the same program in small, to see that it runs

Slices of 512 x 512 a second of the default estimate, network calls on slices a second of samples, patches a second of
training the presets precond and mission (pairs made on the device), peak memory, and the share of what a matrix product
reaches in the same precision, by the FLOPs of torch.utils.flop_counter (forward and backward). Ends with 2 without a
GPU.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from cdm4mi.config.load import load_preset
from cdm4mi.config.schema import Config
from cdm4mi.data import sources
from cdm4mi.inference.settings import changed
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.modules import DDPM, model_class
from cdm4mi.training.run import PairData, train

SIGMA = 0.05
ORDERS = {"channels_last": torch.channels_last, "whole planes": torch.contiguous_format}
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Size:
    """How much is measured: slices (their side, how many), network calls of a sample, steps of a training, its batch
    (None: the preset's, then that of ``LARGE``, in bf16), side of the matrix product, patients of
    phantoms, and what else is changed in a preset."""

    side: int
    slices: int
    calls: int
    steps: int
    batch: int | None
    product: int
    patients: int
    overrides: tuple[str, ...] = ()


LARGE = {"precond": 1024, "mission": 128}
"""Batches for which a GPU is fast."""
FULL = Size(512, 64, 10, 60, None, 8192, 2)
SMALL = Size(32, 1, 2, 2, 1, 128, 2, ("model.image_size=16", "model.unet_rosinality_config.channel=32"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--only", choices=["restoring", *LARGE], help="one of the parts (default: all)")
    parser.add_argument("--compile", action="store_true", help="compile the networks for training: a minute each")
    parser.add_argument("--small", action="store_true", help="a few seconds on a CPU; the figures mean nothing")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device here; --device cpu --small shows that the program runs")
        return 2
    size, device = SMALL if options.small else FULL, torch.device(options.device)
    logging.getLogger("cdm4mi").setLevel(logging.ERROR)
    sources.PHANTOM_PATIENTS = size.patients
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}{', small: the figures mean nothing' if options.small else ''}")
    precisions = ["32", "bf16", "fp16"] if device.type == "cuda" else ["32"]
    peak = {precision: product_flops(device, DTYPES[precision], size.product) for precision in precisions}
    for precision, flops in peak.items():
        print(f"matrix product, {size.product} x {size.product}, {precision}: {flops / 1e12:.2f} TFLOP/s")
    if options.only in (None, "restoring"):
        restoring(device, size)
    for preset in LARGE:
        if options.only not in (None, preset):
            continue
        stated = load_preset(preset).training.batch_size
        cases = [("bf16", stated), ("bf16", LARGE[preset])] if size.batch is None else [("32", size.batch)]
        for precision, batch in cases:
            training(device, preset, precision, batch, size, peak[precision], compiled=options.compile)
    return 0


def restoring(device: torch.device, size: Size) -> None:
    """Print slices a second of the shipped model's default estimate and of a sample, and the network's calls.

    Once more with the other order in memory, to see that ``networks.precision.arrange_for`` chooses the faster.
    """
    model = load_model(None)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((size.slices, size.side, size.side)).astype(np.float32) * SIGMA
    sample = changed(model.config.sampling, estimate="sample", steps=size.calls, tile=size.side)
    default = changed(model.config.sampling, tile=size.side)
    other = "channels_last" if device.type == "cuda" else "whole planes"
    ways = (
        ("default estimate", default, 1, size.slices, None),
        ("default estimate of one slice", default, 1, 1, None),
        (f"sample of {size.calls} calls", sample, size.calls, size.slices, None),
        (f"default estimate, {other}", default, 1, size.slices, other),
    )
    for what, settings, calls, slices, order in ways:
        restorer, y = SliceRestorer(model, settings, device, "auto"), noise[:slices]
        if order is not None:
            restorer.network.to(memory_format=ORDERS[order])

        def restore(restorer: SliceRestorer = restorer, y: NDArray[np.float32] = y) -> None:
            restorer.moments(y, SIGMA)

        reset_memory(device)
        seconds = fastest(restore, device, 3 if size is FULL else 1)
        print(
            f"restoring {size.side} x {size.side}, {what}, {str(restorer.dtype).removeprefix('torch.')}: "
            f"{slices / seconds:.1f} slices/s, {slices * calls / seconds:.1f} slice-calls/s{memory(device)}",
            flush=True,
        )


def training(
    device: torch.device, preset: str, precision: str, batch: int, size: Size, peak: float, *, compiled: bool = False
) -> None:
    """Print patches a second of a training of a preset on phantoms, the peak memory and the share of the peak FLOPs."""
    config = load_preset(
        preset,
        [
            "data.kind=phantoms",
            f"data.val_patches={batch}",
            f"data.workers={min(16, os.cpu_count() or 1) if device.type == 'cuda' else 0}",
            "data.on_device=true",
            f"training.accelerator={device.type}",
            f"training.precision={precision}",
            f"training.batch_size={batch}",
            f"training.compile={str(compiled).lower()}",
            f"training.max_tsteps={size.steps}",
            f"training.val_every={size.steps}",
            f"training.log_every={max(1, size.steps // 3)}",
            "training.picture_every=0",
            *size.overrides,
        ],
    )
    data = PairData(config)
    per_patch = patch_flops(config, data)
    reset_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder), progress=False, data=data)
        with next(Path(folder).rglob("metrics.csv")).open() as file:
            rate = max(float(row["train/images_per_second"]) for row in csv.DictReader(file) if row["train/loss"])
    how = f"{precision}, compiled" if compiled else precision
    print(
        f"training {preset}, batch {batch}, {how}: {rate:.1f} patches/s, {per_patch / 1e9:.1f} GFLOP a patch, "
        f"{rate * per_patch / peak:.1%} of a matrix product{memory(device)}",
        flush=True,
    )


def patch_flops(config: Config, data: PairData) -> float:
    """FLOPs of the loss of a patch and its gradient."""
    module: DDPM = model_class(config.model)(config=config)
    batch = data.train_pairs.batch(range(2))
    with FlopCounterMode(display=False) as counter:
        module.losses(batch, *module.draw(batch["x0"], batch["index"])).mean().backward()
    return float(counter.get_total_flops()) / 2


def product_flops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOPs a second of a product of two square matrices of this side."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / fastest(lambda: a @ b, device, 10)


def fastest(do: Callable[[], object], device: torch.device, times: int) -> float:
    """Least seconds of some calls, after one that does not count."""
    taken = []
    for _ in range(1 + times):
        began = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def reset_memory(device: torch.device) -> None:
    """Count the peak memory of a GPU from here on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory(device: torch.device) -> str:
    """The peak memory of a GPU as the end of a line."""
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device.type == "cuda" else ""


if __name__ == "__main__":
    sys.exit(main())
