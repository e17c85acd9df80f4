"""Rician noise: what the magnitude of one coil's complex MR image has."""

from __future__ import annotations

from typing import Literal

from cdm4mi.degradation.base import noise
from cdm4mi.degradation.noises.noncentral_chi import MagnitudeNoise


@noise
class RicianNoise(MagnitudeNoise):
    """M = sqrt((A + s n_1)^2 + (s n_2)^2), the non-central chi noise of one coil.

    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618: in the background the mean is s sqrt(pi / 2) and the
    variance (2 - pi / 2) s^2; at high A the noise is Gaussian of standard deviation s.
    """

    type: Literal["rician"] = "rician"

    def coil_count(self) -> int:
        return 1
