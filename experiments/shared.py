"""Where the real scans and the reference vectors are that studies and some tests need: they are not in the repository.

The folder that the environment variable CDM4MI_DATA names, by default ``shared`` beside the checkout: its ``data`` has
the scans, its ``reference`` the outputs of an independent network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DEFAULT = "../shared"
"""Relative to the checkout, as the configurations of the studies name it."""

SHARED = Path(os.environ.get("CDM4MI_DATA") or Path(__file__).resolve().parents[1] / DEFAULT)
SCANS = SHARED / "data"
REFERENCE = SHARED / "reference"


def moved(paths: Sequence[str]) -> list[str]:
    """Paths of a study's configuration, those under ``../shared`` where CDM4MI_DATA has them."""
    if not os.environ.get("CDM4MI_DATA"):
        return list(paths)
    return [str(SHARED / Path(path).relative_to(DEFAULT)) if path.startswith(DEFAULT) else path for path in paths]
