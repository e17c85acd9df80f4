"""Store float values as integers: choose the type, slope and intercept that lose the least, and convert back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.io.arrays import converted, count_where, limits, planes

# A restored value lies between the source's stored steps. Up to 2**4 finer steps are offered: 1/16 HU for a CT of
# 12 bits still fits 16 bits, and its rounding error (0.02 HU) is far under any scan's noise. A power of two keeps the
# source's own values on the finer grid, so what was not changed stays bit-equal.
MAX_REFINEMENT = 4
# Where the type is already used to this fraction of the values' span, finer steps are not asked for.
FINE_ENOUGH = 2.0**-12


@dataclass(frozen=True)
class Grid:
    """value = stored * slope + intercept, stored in ``dtype`` (and within ``bits`` of it)."""

    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0
    bits: int = 0

    @property
    def limits(self) -> tuple[int, int]:
        bits = self.bits or self.dtype.itemsize * 8
        return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if self.dtype.kind == "i" else (0, (1 << bits) - 1)

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Nearest stored numbers (rounded, never truncated), clipped to the type's limits."""
        low, high = self.limits
        stored = np.rint((np.asarray(values, dtype=np.float64) - self.intercept) / self.slope)
        return np.clip(stored, low, high).astype(self.dtype)

    def decode(self, stored: NDArray[Any]) -> NDArray[Any]:
        """float32 values of stored numbers."""
        return rescale(stored, self.slope, self.intercept)

    def fits(self, low: float, high: float) -> bool:
        first, last = self.limits
        ends = np.rint((np.array([low, high]) - self.intercept) / self.slope)
        return bool(first <= ends.min() and ends.max() <= last)

    def exact(self, values: NDArray[Any]) -> bool:
        """Whether every value is met exactly (as float32)."""
        return all(np.array_equal(self.decode(self.encode(plane)), plane) for plane in planes(values))


def rescale(
    stored: NDArray[Any], slope: float, intercept: float, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """stored * slope + intercept, computed in float64 and rounded once to float32."""
    if slope == 1 and float(intercept).is_integer() and stored.dtype.itemsize <= 2 and abs(intercept) < 2**22:
        # All numbers are integers under 2**24: float32 is exact, and much faster.
        exact: NDArray[np.float32] = np.add(stored, np.float32(intercept), out=out, dtype=np.float32, casting="unsafe")
        return exact
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    if out is None:
        return values.astype(np.float32)
    out[...] = values
    return out


def refine(
    values: NDArray[Any], candidates: list[Grid], number: Callable[[float], float] = float, only_exact: bool = False
) -> Grid | None:
    """The first candidate that holds ``values`` (finite) exactly, or else the finest that holds their range, or None.

    ``number`` rounds a slope to what the format can write (DICOM: 16 characters).
    """
    low, high = limits(values)
    for grid in candidates:
        if grid.fits(low, high) and grid.exact(values):
            return grid
    if only_exact:
        return None
    for power in range(MAX_REFINEMENT, -1, -1):
        for grid in candidates:
            finer = Grid(grid.dtype, number(grid.slope / 2**power), grid.intercept)
            if finer.fits(low, high):
                return finer
    return None


def fine_enough(grid: Grid, values: NDArray[Any], source_slope: float) -> bool:
    """Whether the grid's step is small against the span of the values, or against the step that the source had."""
    step, (low, high) = abs(grid.slope), limits(values)
    return step <= float(np.float32(high - low)) * FINE_ENOUGH or step <= abs(source_slope) / 8


def as_type(
    array: NDArray[Any], dtype: np.dtype[Any] | None, forced: bool, codes: set[str], notes: list[str]
) -> NDArray[Any]:
    """The array in a type for a format without slope and intercept (``codes``: those it has, as "i2").

    Integers are kept where they hold the values exactly, or where the user asked for them (then rounded); otherwise
    float32, noted. A wider float type of the source is kept.
    """
    if dtype is None:
        return array
    if dtype.str[1:] not in codes:
        notes.append(f"stored as float32 instead of {dtype}")
        return array
    if dtype.kind == "f":
        return converted(array, dtype, lambda plane: plane)
    grid = Grid(dtype)
    if not count_where(array, lambda plane: ~np.isfinite(plane)):
        if grid.fits(*limits(array)) and grid.exact(array):
            return converted(array, dtype, grid.encode)
        if forced:
            notes.append(f"values were rounded to {dtype}")
            return converted(array, dtype, grid.encode)
    notes.append(f"stored as float32 instead of {dtype}: the values are not whole numbers within its limits")
    return array
