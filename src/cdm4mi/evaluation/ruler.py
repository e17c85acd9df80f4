"""A protocol applied to one reference scan: its window in numbers, and images in the units of each metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.protocol import FixedWindow, PercentileWindow, Protocol
from cdm4mi.intensity import modality_of, window_for
from cdm4mi.io import Volume


@dataclass(frozen=True)
class Ruler:
    """What images are measured with: the same for the reference and for every method that is compared with it.

    low, high: the window's ends in physical units. modality: CT, MR, PT or None. unit: of physical values, in words.
    colour: whether images have channels.
    """

    protocol: Protocol
    low: float
    high: float
    modality: str | None
    unit: str
    colour: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """What the window's ends become for SSIM and PSNR."""
        if self.protocol.scale is None:
            return 0.0, self.high - self.low
        return self.protocol.scale[0], self.protocol.scale[1]

    @property
    def limits(self) -> tuple[float, float]:
        """Physical values that errors are clipped to."""
        limits = self.protocol.error_limits
        return (self.low, self.high) if isinstance(limits, str) else (limits[0], limits[1])

    @property
    def error_unit(self) -> str:
        """The unit of MAE, RMSE and bias, in words."""
        return self.unit if self.protocol.error_unit == "physical" else f"on [{self.scale[0]:g}, {self.scale[1]:g}]"

    def windowed(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the window, on the protocol's scale. float64."""
        return self._on_scale(np.clip(np.asarray(x, np.float64), self.low, self.high))

    def limited(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the error limits, in the protocol's unit of errors. float64."""
        x = np.clip(np.asarray(x, np.float64), *self.limits)
        return x if self.protocol.error_unit == "physical" else self._on_scale(x)

    def grey_levels(self, x: NDArray[Any]) -> NDArray[Any]:
        """Physical values clipped to the error limits, these mapped to 0 to ``vif_levels``. float64."""
        low, high = self.limits
        return (np.clip(np.asarray(x, np.float64), low, high) - low) * (self.protocol.vif_levels / (high - low))

    def data_range(self, windowed_reference: NDArray[Any]) -> float:
        """Of PSNR and SSIM, on the scale: the window's, or that of the reference slice where the protocol says so."""
        if self.protocol.data_range == "window":
            return self.scale[1] - self.scale[0]
        return float(np.ptp(windowed_reference))

    def outside(self, x: NDArray[Any]) -> float:
        """Share of the values that the window clips."""
        return float(np.mean((x < self.low) | (x > self.high)))

    def _on_scale(self, x: NDArray[Any]) -> NDArray[Any]:
        start, end = self.scale
        return start + (x - self.low) * ((end - start) / (self.high - self.low))


def ruler_for(protocol: Protocol, reference: Volume, name: str = "reference") -> Ruler:
    """The protocol's ruler for one reference scan.

    Raises:
        UserError: the scan is of another modality than the protocol's, or constant where its values make the window.
    """
    modality = "CT" if modality_of(reference) == "CT" else reference.modality
    if protocol.modality != "any" and modality not in (protocol.modality, None):
        raise UserError(f"{name}: is {modality}, expected {protocol.modality} for the protocol {protocol.name}")
    if protocol.modality == "CT" and modality is None:
        raise UserError(f"{name}: holds no HU (no air near -1000), expected CT for the protocol {protocol.name}")
    colour = reference.channel_axis is not None
    unit = reference.units or ("HU" if modality == "CT" else "stored values" if colour else "scanner units")
    window = protocol.window
    if isinstance(window, FixedWindow):
        return Ruler(protocol, window.low, window.high, modality, unit, colour)
    finite = reference.array[np.isfinite(reference.array)]
    if finite.size == 0 or finite.min() == finite.max():
        raise UserError(f"{name}: is constant, expected an image; or give the range (--range LOW HIGH)")
    if isinstance(window, PercentileWindow):
        low, high = (float(v) for v in np.percentile(finite, (window.low, window.high)))
        return Ruler(protocol, low, high if high > low else float(finite.max()), modality, unit, colour)
    known = replace(reference, modality=modality or "MR")
    norm = window_for(known, percentiles=(0.0, window.percentile))
    return Ruler(protocol, norm.low, norm.high, modality, unit, colour)
