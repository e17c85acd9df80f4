"""Flicker along z: brightness that changes from slice to slice because slices were restored one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError

BLOCK = 16


def flicker(x: NDArray[Any], ref: NDArray[Any], mask: NDArray[Any] | None = None, block: int = BLOCK) -> float:
    """Root mean square difference of the error's block means in neighbouring slices, over sqrt(2), in image units.

    Slices with independent brightness errors of standard deviation s give s; an error that is the same in all slices
    gives 0, and white noise of standard deviation s in the pixels gives s / block.

    Args:
        x: (slices, rows, columns).
        ref: the reference, of the same shape, in the same units.
        mask: bool, of the same shape; a block counts where at least half of it is inside in both slices.
        block: side of a block in pixels.

    Returns:
        nan where no two neighbouring slices share a block.
    """
    if x.ndim != 3 or x.shape != ref.shape or (mask is not None and mask.shape != x.shape):
        raise UserError(f"flicker of shapes {x.shape} and {ref.shape}, expected two equal (slices, rows, columns)")
    inside = np.ones(x.shape) if mask is None else mask.astype(np.float64)
    error = (np.asarray(x, np.float64) - np.asarray(ref, np.float64)) * inside
    counts, sums = _blocks(inside, block), _blocks(error, block)
    held = counts >= block**2 / 2
    means = np.where(held, sums, 0) / np.where(held, counts, 1)
    both = held[1:] & held[:-1]
    change = (means[1:] - means[:-1])[both]
    return float(np.sqrt(np.mean(change**2) / 2)) if change.size else float("nan")


def _blocks(stack: NDArray[Any], block: int) -> NDArray[np.floating]:
    rows, columns = (n // block for n in stack.shape[1:])
    whole = stack[:, : rows * block, : columns * block]
    sums: NDArray[np.floating] = whole.reshape(len(stack), rows, block, columns, block).sum(axis=(2, 4))
    return sums
