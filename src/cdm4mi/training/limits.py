"""What a training asks of the machine, refused before it is taken, or made one line where it was not to be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import nn

from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError
from cdm4mi.files import check_place

COPIES = 5
"""Numbers for each weight: itself, its gradient, two moments of Adam, its average."""
SAVED = 4
"""Of those in a checkpoint, and how many checkpoints lie in a folder while one is written."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed", "out of memory")


@contextmanager
def memory_errors(config: Config) -> Iterator[None]:
    """Make one line, a UserError that names the keys to lower, of memory that is not to be had within the block."""
    training, model = config.training, config.model
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            unet = model.unet_rosinality_config
            raise UserError(
                f"out of memory with training.batch_size {training.batch_size}, model.image_size {model.image_size} "
                f"and unet_rosinality_config.channel {unet.channel}: lower one of them (training.accumulate keeps the "
                "images a step), or set unet_rosinality_config.gradient_checkpointing"
            ) from None
        if str(error).startswith("DataLoader worker"):
            raise UserError(
                f"a worker of the data was ended from outside (out of memory?): lower data.workers, found "
                f"{config.data.workers}"
            ) from None
        raise


def check_memory(network: nn.Module) -> None:
    """Refuse a network (its weights may be on the meta device) that this machine cannot train for want of memory."""
    needed = COPIES * _bytes(network)
    if torch.cuda.is_available():
        free, where = torch.cuda.mem_get_info()[0], "the GPU has"
    else:
        free, where = psutil.virtual_memory().available, "this machine has"
    if needed > free:
        raise UserError(
            f"unet_rosinality_config: a network of {_bytes(network) / 4:.3g} weights, whose training takes at least "
            f"{needed / 2**30:.1f} GiB, expected one for the {free / 2**30:.1f} GiB that {where} free: lower channel, "
            "channel_multiplier or n_res_blocks"
        )


def check_disk(network: nn.Module, folder: Path) -> None:
    """Refuse a folder whose disk has no room for the checkpoints."""
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/*.ckpt"))
    check_place(folder / "checkpoints", SAVED * SAVED * _bytes(network) - there)


def _bytes(network: nn.Module) -> int:
    return 4 * sum(weight.numel() for weight in network.parameters())
