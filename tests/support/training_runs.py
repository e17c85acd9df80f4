"""Tiny training runs for the tests: HDF5 patches cut from phantoms, and runs in processes that can be killed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import torch

from cdm4mi.config.schema import Config
from cdm4mi.data.phantoms import phantom

SIDE = 16
PEOPLE = 5


def patch_folder(root: Path, side: int = SIDE) -> Path:
    """A folder of HDF5 patches, integers 0 to 255, two files a person, as the original work keeps them."""
    root.mkdir(parents=True, exist_ok=True)
    for person in range(PEOPLE):
        image = phantom("MR", person, 64)[16 : 16 + 2 * side, 16 : 16 + 2 * side]
        patches = np.stack([image[:side, :side], image[side:, :side], image[:side, side:], image[side:, side:]])
        for part in range(2):
            with h5py.File(root / f"sub-{person:02d}_patch_{part}.h5", "w") as file:
                file["data"] = np.clip(patches[2 * part : 2 * part + 2] / 4, 0, 255).astype(np.uint8)
    return root


def tiny_config(patches: Path, model: dict | None = None, data: dict | None = None, **training) -> Config:
    """The smallest network that the configuration allows, with everything that could upset a resumed run."""
    unet = {"in_channel": 2, "channel": 32, "channel_multiplier": [1], "n_res_blocks": 1, "attn_strides": [1]}
    return Config.model_validate(
        {
            "seed": 7,
            "model": {
                "image_size": SIDE,
                "timesteps": 50,
                "unet_rosinality_config": {**unet, "dropout": 0.2, **(model or {}).pop("unet", {})},
                **(model or {}),
            },
            "data": {
                "kind": "hdf5",
                "paths": [str(patches)],
                "foreground": 0.0,
                "val_patches": 8,
                "noise": {"variance": [0.01, 0.1]},
                **(data or {}),
            },
            "training": {
                "max_tsteps": 9,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "lr_decay": "cosine",
                "warmup": 2,
                "val_every": 4,
                "checkpoint_every": 2,
                "log_every": 2,
                "picture_every": 0,
                **training,
            },
        }
    )


def in_process(config: Config, out: Path, *, resume: bool = False, stop: tuple = (), by: int = signal.SIGKILL) -> int:
    """Train in a process of its own and return its exit code: -9 where it was killed at the moment ``stop``.

    stop: ("batch", step, micro-batch) while a gradient is made; ("validation", step) in the middle of one;
    ("write", n, "torn" | "whole" | "between" | "renamed") in, after, in the midst of, or after the renaming of
    the n-th checkpoint (n from 1).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdm4mi.training.run", "training_runs"])
    process = context.Process(target=_train, args=(config.model_dump(mode="json"), str(out), resume, stop, by))
    process.start()
    process.join(1200)
    assert process.exitcode is not None
    return process.exitcode


def _train(config: dict, out: str, resume: bool, stop: tuple, by: int) -> None:
    torch.set_num_threads(1)
    from cdm4mi.training.run import train

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _record_batches(folder / "batches.txt")
    if stop:
        {"batch": _stop_in_batch, "validation": _stop_in_validation, "write": _stop_in_write}[stop[0]](by, *stop[1:])
    train(Config.model_validate(config), folder, resume=resume, progress=False)


def _record_batches(file: Path) -> None:
    """Append a line for each batch that training sees: step, micro-batch, what was in it."""
    from cdm4mi.training.modules import DDPM

    step = DDPM.training_step

    def recorded(self, batch, batch_idx):
        content = hashlib.sha256(b"".join(batch[k].numpy().tobytes() for k in sorted(batch))).hexdigest()
        with file.open("a") as f:
            f.write(f"{self.trainer.global_step} {batch_idx % self.config.training.accumulate} {content}\n")
        return step(self, batch, batch_idx)

    DDPM.training_step = recorded


def _stop_in_batch(by: int, step: int, micro: int = 0) -> None:
    from cdm4mi.training.modules import DDPM

    loss = DDPM.losses

    def losses(self, *args):
        now = (self.trainer.global_step, self.trainer.fit_loop.epoch_loop.batch_idx % self.config.training.accumulate)
        if self.training and now == (step, micro):
            for worker in multiprocessing.active_children() if by != signal.SIGKILL else []:
                os.kill(worker.pid, by)  # as a scheduler does, and a terminal
            os.kill(os.getpid(), by)
        return loss(self, *args)

    DDPM.losses = losses


def _stop_in_validation(by: int, step: int) -> None:
    from cdm4mi.training.modules import DDPM

    validate = DDPM.validation_step

    def validation_step(self, batch, batch_idx):
        if self.trainer.global_step == step and batch_idx == 1:
            os.kill(os.getpid(), by)
        return validate(self, batch, batch_idx)

    DDPM.validation_step = validation_step


def _stop_in_write(by: int, n: int, moment: str) -> None:
    from cdm4mi import files

    count = 0

    class Files:
        """``os`` as the writer sees it."""

        def __getattr__(self, name):
            return getattr(os, name)

        def fsync(self, descriptor):
            nonlocal count
            os.fsync(descriptor)
            if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(".ckpt"):
                return
            count += 1
            if count == n and moment == "torn":
                os.truncate(f"/proc/self/fd/{descriptor}", 1000)
                os.kill(os.getpid(), by)
            if count == n and moment == "whole":
                os.kill(os.getpid(), by)

        def replace(self, source, target):
            os.replace(source, target)
            between = Path(target).name == "previous.ckpt"
            if count == n and moment == ("between" if between else "renamed"):
                os.kill(os.getpid(), by)

    files.os = Files()


def checkpoint(out: Path, name: str = "last") -> dict:
    """A checkpoint as ``denoise`` reads it: plain data only."""
    return torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)


def batches(out: Path) -> dict[tuple[int, int], set[str]]:
    """What was seen in each (step, micro-batch), by all processes that trained into the folder."""
    seen: dict[tuple[int, int], set[str]] = {}
    for line in (out / "batches.txt").read_text().splitlines():
        step, micro, content = line.split()
        seen.setdefault((int(step), int(micro)), set()).add(content)
    return seen


def same(a, b) -> bool:
    """Equal to the bit, through nested dictionaries and lists."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b
