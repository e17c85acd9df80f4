"""The noise that a model was trained on, for scans of one intensity window, and what of a scan's lies outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.config.schema import Config
from cdm4mi.degradation import Frame
from cdm4mi.errors import UserError
from cdm4mi.window import IntensityWindow

CORRELATION_MARGIN = 0.2
"""How far a measured correlation may lie from those of training: anatomy makes that much in a small image."""
SIGMA_MARGIN = 0.01
"""Share by which a measured level may lie outside: rounding."""

OTHER_MODALITY = "the model was trained on no scan of this modality"

Range = tuple[float, float]


@dataclass(frozen=True)
class NoiseRange:
    """Noise of a model's training.

    sigma: least and greatest standard deviation on [-1, 1]. correlation: of neighbouring pixels, the mean of both axes,
    -1 to 1. Either is None where it depends on the images. suits: whether any of it is for the scan's modality.
    """

    sigma: Range | None
    correlation: Range | None
    suits: bool

    @classmethod
    def of(cls, config: Config, window: IntensityWindow) -> NoiseRange:
        """What a model of this configuration was trained on, for a scan with this intensity window."""
        noise, frame = config.data.noise, Frame.of(window)
        try:
            noise.check(frame)
            suits = True
        except UserError:
            suits = False
        return cls(noise.sigma_range(frame), noise.correlation_range(frame), suits)

    def has_correlation(self, correlation: float) -> bool:
        """Whether the correlation is one of training, or within ``CORRELATION_MARGIN`` of it; so is any unknown one."""
        if self.correlation is None:
            return True
        low, high = self.correlation
        return low - CORRELATION_MARGIN <= correlation <= high + CORRELATION_MARGIN

    def nearest_sigma(self, sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        """The levels, on [-1, 1], brought into the range of training."""
        return sigma if self.sigma is None else sigma.clip(*self.sigma)

    def outside(self, sigma: NDArray[np.float64]) -> NDArray[Any]:
        """Which levels lie outside the range of training by more than ``SIGMA_MARGIN``, bool."""
        nearest = self.nearest_sigma(sigma)
        found: NDArray[Any] = (nearest < sigma * (1 - SIGMA_MARGIN)) | (nearest > sigma * (1 + SIGMA_MARGIN))
        return found
