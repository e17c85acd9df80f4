"""Checkpoints that are whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cdm4mi.models.torch_file import save_torch
from cdm4mi.training.last_checkpoint import LAST, PREVIOUS


class AtomicCheckpointIO(TorchCheckpointIO):
    """A kill at any moment leaves the old checkpoint or the new one; reading never unpickles code.

    The last.ckpt that was there becomes previous.ckpt, for the day when a disk or a copy damages the last.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        keep = path.with_name(PREVIOUS) if path.name == LAST else None
        save_torch({**checkpoint, "callbacks": _relative(checkpoint.get("callbacks", {}), _folder(path))}, path, keep)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        for state in checkpoint.get("callbacks", {}).values():
            if "dirpath" in state:  # a ModelCheckpoint's
                _join(state, _folder(Path(path)))
        return checkpoint


def _folder(path: Path) -> str:
    return os.path.realpath(path.parent)


def _relative(value: Any, folder: str) -> Any:
    """The state of callbacks without the folder of the run: a checkpoint goes from machine to machine."""
    if isinstance(value, dict):
        return {_relative(key, folder): _relative(item, folder) for key, item in value.items()}
    if isinstance(value, str) and (value == folder or value.startswith(folder + os.sep)):
        return os.path.relpath(value, folder)
    return value


def _join(state: dict[str, Any], folder: str) -> None:
    """Put the paths of a ModelCheckpoint's state into the folder that it is read from."""
    state["dirpath"] = folder
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = state[key] and os.path.join(folder, state[key])
    state["best_k_models"] = {os.path.join(folder, name): score for name, score in state["best_k_models"].items()}
