"""MR magnitude noise of several receiver coils: the non-central chi distribution, and what undoes its bias."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Annotated, Literal

from pydantic import Field

from cdm4mi.degradation.base import (
    PERCENT,
    BatchedNoise,
    Drawn,
    Frame,
    Numbers,
    RandomNumbers,
    bounds,
    draw_log_uniform,
    noise,
    per_image,
)
from cdm4mi.degradation.lazy_torch import F, Tensor, torch
from cdm4mi.degradation.varying import smooth_maps
from cdm4mi.section import NonNegativeRange

WINDOW = 5
"""Side of the squares that the second moment is averaged over: the root of a single pixel's would read low."""


class MagnitudeNoise(BatchedNoise):
    """M = sqrt((A + s n_1)^2 + s^2 (n_2^2 + ... + n_2L^2)): the root sum of squares of L coils.

    A is the clean magnitude in scanner units, s the standard deviation in each coil's real and imaginary part
    (Constantinides et al. 1997, doi:10.1002/mrm.1910380524, eq. 2); in the background M^2 is 2 L s^2 on average.
    s is drawn uniform in its logarithm. ``variation`` keeps its mean square (``smooth_map``). The level is s on
    [-1, 1]: the standard deviation of bright tissue.
    """

    percent: NonNegativeRange = Field(5.0, description=PERCENT)
    variation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="how far the standard deviation runs up and down over the image, 0 to below 1"
    )

    @abstractmethod
    def coil_count(self) -> int:
        """L."""

    @property
    def whole_slice(self) -> bool:
        return self.variation > 0  # a map over the slice is not one over a patch

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("MR", "PT", None)

    def draw(self, generator: torch.Generator) -> float:
        """s in percent of the reference."""
        return draw_log_uniform(self.percent, generator)

    @property
    def group(self) -> Hashable:
        return self.type, self.coil_count(), self.variation

    def numbers(self, parameter: float, frame: Frame) -> Numbers:
        """Of s, of the map of s, and of the value of no signal."""
        sigma = frame.from_percent(parameter) * frame.scale
        return {"sigma": sigma, "variation": self.variation, "zero": frame.normalised(0.0)}

    def add(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        s, zero = per_image(drawn["sigma"], x0), per_image(drawn["zero"], x0)
        if self.variation:
            s = s * smooth_maps(x0, drawn["variation"], random)
        squares = ((x0 - zero).clamp(min=0) + s * random.normal(*x0.shape[1:])).square()
        for part in range(1, 2 * self.coil_count()):
            squares += (s * random.normal(*x0.shape[1:], stream=part)).square()
        return zero + squares.sqrt()

    def levels(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        return drawn["sigma"]

    def level(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> float:
        return frame.from_percent(parameter) * frame.scale

    def is_magnitude(self, parameter: float, frame: Frame) -> bool:
        return True

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """The magnitudes after the signed ``second_moment_correction`` over ``WINDOW`` pixels square, on [-1, 1]."""
        return second_moment_correction(y - zero, level, self.coil_count(), WINDOW, signed=True) + zero

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float]:
        return 0.0, 0.0

    def sigma_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        if frame is None:
            return None
        least, most = (frame.from_percent(p) * frame.scale for p in bounds(self.percent))
        return least, most


@noise
class NoncentralChiNoise(MagnitudeNoise):
    """Noise of an MR magnitude image of several coils."""

    type: Literal["noncentral_chi"] = "noncentral_chi"
    coils: Annotated[int, Field(ge=1, le=128)] = Field(8, description="receiver coils")

    def coil_count(self) -> int:
        return self.coils


def second_moment_correction(
    magnitude: Tensor, sigma: float | Tensor, coils: int = 1, window: int = 1, *, signed: bool = False
) -> Tensor:
    """The clean magnitude A from noisy ones: sqrt(max(mean(M^2) - 2 L s^2, 0)), as E[M^2] = A^2 + 2 L s^2 exactly.

    magnitude: (..., H, W) in scanner units; sigma: s in the same, a number or a map (H, W); coils: L, 1 for Rician;
    window: side in pixels (odd) of the square over which M^2 is averaged. A single pixel (window 1) is free of bias in
    A^2, but its root reads low by about s^2 / (2 A): average before the root, or correct an image that is denoised.
    signed: where the difference is negative, minus the root of its size in place of 0, so that air has the mean 0.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: found {window}, expected an odd number of pixels")
    squares = magnitude.square()
    if window > 1:
        flat = squares.reshape(-1, 1, *squares.shape[-2:])
        mean = F.avg_pool2d(flat, window, stride=1, padding=window // 2, count_include_pad=False)
        squares = mean.reshape(squares.shape)
    noise = torch.as_tensor(sigma, dtype=magnitude.dtype, device=magnitude.device)
    difference = squares - 2 * coils * noise.square()
    return difference.sign() * difference.abs().sqrt() if signed else difference.clamp(min=0).sqrt()
