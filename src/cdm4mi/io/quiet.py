"""Keeps the libraries' remarks on odd files off the terminal; what matters is in ``Volume.warnings`` or the error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("pydicom", "nibabel.global", "tifffile", "PIL", "highdicom", "h5py")


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block no library of file formats warns or logs below CRITICAL."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
