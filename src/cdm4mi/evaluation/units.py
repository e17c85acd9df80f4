"""The units that metrics see images in: clipped to a window, on a protocol's scale, as errors or as grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Units:
    """What images are measured with: the same for the reference and for every method that is compared with it.

    low, high: the window's ends in physical units, which become ``scale`` for PSNR and SSIM. modality: CT, MR, PT or
    None. unit: of physical values, in words. limits: physical values that errors are clipped to; with
    ``errors_on_scale`` errors are on the scale, else physical. error_unit: theirs, in words. grey_count: what the
    limits span as grey levels. slice_range: PSNR and SSIM take max - min of each reference for the data range. colour:
    images have channels behind. lpips: files of LPIPS's weights, or None.
    """

    low: float
    high: float
    modality: str | None
    unit: str
    scale: tuple[float, float]
    limits: tuple[float, float]
    errors_on_scale: bool
    grey_count: float
    slice_range: bool
    colour: bool
    lpips: tuple[str, str] | None

    @property
    def error_unit(self) -> str:
        """The unit of MAE, RMSE and bias, in words."""
        return f"on [{self.scale[0]:g}, {self.scale[1]:g}]" if self.errors_on_scale else self.unit

    def windowed(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the window, on the scale. float64."""
        return self._on_scale(np.clip(np.asarray(x, np.float64), self.low, self.high))

    def limited(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the error limits, in the unit of errors. float64."""
        x = np.clip(np.asarray(x, np.float64), *self.limits)
        return self._on_scale(x) if self.errors_on_scale else x

    def grey_levels(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the error limits, these mapped to 0 to ``grey_count``. float64."""
        low, high = self.limits
        return (np.clip(np.asarray(x, np.float64), low, high) - low) * (self.grey_count / (high - low))

    def data_range(self, windowed_reference: NDArray[Any]) -> float:
        """Of PSNR and SSIM, on the scale: the window's, or the reference's own."""
        return float(np.ptp(windowed_reference)) if self.slice_range else self.scale[1] - self.scale[0]

    def outside(self, x: NDArray[Any]) -> float:
        """Share of the values that the window clips."""
        return float(np.mean((x < self.low) | (x > self.high)))

    def _on_scale(self, x: NDArray[Any]) -> NDArray[Any]:
        start, end = self.scale
        return start + (x - self.low) * ((end - start) / (self.high - self.low))
