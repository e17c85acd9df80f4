"""Files of ``torch.save`` that are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch

from cdm4mi.files import replacing_file, underlying


def save_torch(value: Any, path: Path, keep: Path | None = None) -> None:
    """Write a value by ``torch.save``. keep: another name for the file that was there.

    To a file and not to a path: of that torch would keep the temporary name inside.
    """
    with replacing_file(path, keep=keep) as temporary, temporary.open("wb") as file:
        write_torch(value, file)


def write_torch(value: Any, file: BinaryIO) -> None:
    """``torch.save`` that a signal ends by the signal's own exception: torch raises a RuntimeError over it."""
    try:
        torch.save(value, file)
    except RuntimeError as error:
        reason = underlying(error, lambda below: not isinstance(below, Exception))
        if reason is None:
            raise
        raise reason from None
