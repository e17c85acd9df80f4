"""The intensity window: the linear map from physical units to [-1, 1] and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cdm4mi.errors import UserError

Values = TypeVar("Values")
"""An array of numbers, or a tensor."""


@dataclass(frozen=True)
class IntensityWindow:
    """The linear map low -> -1, high -> +1 of physical units; for arrays and tensors alike.

    low, high: HU, scanner units or activity. modality: "CT", "MR", "PT", "RGB", or None where nothing says.
    Raises UserError where low is not below high.
    """

    low: float
    high: float
    modality: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise UserError(f"intensity window: found {self.low:g} to {self.high:g}, expected low below high")

    @property
    def unit(self) -> str:
        """What physical values of the modality are in, where a file does not say."""
        return {"CT": "HU", "RGB": "stored values"}.get(self.modality or "", "scanner units")

    @property
    def scale(self) -> float:
        """What a difference of one physical unit is on [-1, 1]."""
        return 2.0 / (self.high - self.low)

    def normalised(self, values: Values) -> Values:
        """Physical units to [-1, 1]; values outside the window go outside. An array comes back as float32."""
        x: Values = (_as_float(values) - self.low) * self.scale - 1.0
        return x

    def physical(self, x: Values) -> Values:
        """[-1, 1] to physical units; values outside go outside. An array comes back as float32."""
        values: Values = (_as_float(x) + 1.0) * ((self.high - self.low) / 2) + self.low
        return values


def _as_float(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values
