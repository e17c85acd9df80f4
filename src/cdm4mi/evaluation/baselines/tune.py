"""The search for a baseline's settings: on validation pairs, never on the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError

Pair = tuple[NDArray[Any], NDArray[Any], float]
"""Noisy, reference, sigma; any units."""
Settings = TypeVar("Settings")


def best_of(
    method: Callable[[NDArray[Any], float, Settings], NDArray[Any]], grid: Sequence[Settings], pairs: Sequence[Pair]
) -> Settings:
    """The settings of the grid with the highest mean PSNR on the pairs.

    The mean of log(MSE) is minimised, which is the mean PSNR whatever the data range.
    """
    if not pairs:
        raise UserError("no validation pair to tune a baseline on, expected at least one")

    def loss(settings: Settings) -> float:
        errors = [np.mean((method(y, sigma, settings) - reference) ** 2) for y, reference, sigma in pairs]
        return float(np.mean(np.log(np.maximum(errors, 1e-30))))

    return min(grid, key=loss)
