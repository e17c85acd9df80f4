"""Rician noise: what the magnitude of one coil's complex MR image has."""

from __future__ import annotations

from cdm4mi.degradation.base import Range
from cdm4mi.degradation.noncentral_chi import NoncentralChiNoise


class RicianNoise(NoncentralChiNoise):
    """M = sqrt((A + s n_1)^2 + (s n_2)^2), the non-central chi noise of one coil; parameters as there.

    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618: in the background the mean is s sqrt(pi / 2) and the
    variance (2 - pi / 2) s^2; at high A the noise is Gaussian of standard deviation s.
    """

    name = "rician"

    def __init__(self, percent: Range = 5.0, variation: float = 0.0) -> None:
        super().__init__(percent, coils=1, variation=variation)
