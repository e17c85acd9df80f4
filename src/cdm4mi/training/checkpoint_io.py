"""Checkpoints that are whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cdm4mi.files import replacing_file
from cdm4mi.training.last_checkpoint import LAST, PREVIOUS


class AtomicCheckpointIO(TorchCheckpointIO):
    """A kill at any moment leaves the old checkpoint or the new one; reading never unpickles code.

    The last.ckpt that was there becomes previous.ckpt, for the day when a disk or a copy damages the last.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        keep = path.with_name(PREVIOUS) if path.name == LAST else None
        with replacing_file(path, keep=keep) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return checkpoint
