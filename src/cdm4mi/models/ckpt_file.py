"""Files of Lightning's checkpoints as plain data: whole, of the parts that they must have, and nothing of them run."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdm4mi.errors import UserError
from cdm4mi.models.inert import load_inert
from cdm4mi.models.parts import check_floating, check_parts, check_weights

_ZIP = b"PK\x03\x04"
_OWN = {"global_step": int, "cdm4mi": {"config": dict}}
_AVERAGES = {"weights": dict, "updates": int}


def read_ckpt(file: Path) -> dict[str, Any]:
    """A Lightning checkpoint as plain data. Raises UserError where it is damaged, is none or would run code.

    Objects of other packages beside the weights (OmegaConf's in ``hyper_parameters``, say) are ``models.inert.Inert``;
    a checkpoint of this project holds none.
    """
    check_whole(file)
    checkpoint, names = _plain(file)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: holds no state_dict of tensors, expected a Lightning checkpoint")
    check_weights(file, "state_dict", state)
    if "cdm4mi" in checkpoint:
        if names:
            raise UserError(_not_plain(file, names[0]))
        check_parts(file, "", checkpoint, _OWN)
        if checkpoint["global_step"] < 0:
            raise UserError(f"{file}: global_step: found {checkpoint['global_step']}, expected at least 0")
        if "ema" in checkpoint:
            check_parts(file, "ema", checkpoint["ema"], _AVERAGES)
            check_weights(file, "ema.weights", checkpoint["ema"]["weights"])
            for name, value in checkpoint["ema"]["weights"].items():
                check_floating(file, f"ema.weights: {name}", value)
    found: dict[str, Any] = checkpoint
    return found


def check_whole(file: Path) -> None:
    """Raise UserError where a zip archive, as ``torch.save`` writes it, is cut, or its sums say that it is damaged."""
    try:
        with file.open("rb") as opened:
            zipped = opened.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), expected a checkpoint") from None
    try:
        with zipfile.ZipFile(file) if zipped else nullcontext() as archive:
            damaged = archive is not None and archive.testzip() is not None  # torch checks no sums
    except Exception:  # a damaged archive can raise anything
        damaged = True
    if damaged:
        raise UserError(f"{file}: is cut or damaged, expected a whole checkpoint")


def _plain(file: Path) -> tuple[Any, list[str]]:
    """What the file holds, and the names of classes in it that were not made."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pickle protocol")
            try:
                return torch.load(file, map_location="cpu", weights_only=True, mmap=False), []
            except pickle.UnpicklingError:
                if not zipfile.is_zipfile(file):  # a bare pickle, or a file of torch before 1.6
                    raise
                return load_inert(file)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(_not_plain(file, named[1] if named else None)) from None
    except Exception:  # a pickle made by hand can raise anything
        raise UserError(f"{file}: is not a checkpoint, expected one of cdm4mi train or of the original work") from None


def _not_plain(file: Path, name: str | None) -> str:
    found = f" (it names {name})" if name else ""
    expected = "one that loads with weights_only, or the original work's as torch.save writes it since version 1.6"
    return f"{file}: not a checkpoint of plain tensors{found}, expected {expected}"
