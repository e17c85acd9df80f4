"""White Gaussian noise: its variance stated on [-1, 1], or its standard deviation in HU or percent of the tissue."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

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
    shown,
)
from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.section import NonNegativeRange


class StatedSigma(BatchedNoise):
    """The keys of noise with a standard deviation that is stated in one of three ways, and what it is on [-1, 1].

    The ``variance`` is on [-1, 1]; ``sigma_hu`` is for CT only; ``percent`` is not for CT, whose zero is arbitrary.
    """

    variance: NonNegativeRange | None = Field(0.01, description="variance on [-1, 1], the intensity window")
    sigma_hu: NonNegativeRange | None = Field(None, description="standard deviation in HU (CT)")
    percent: NonNegativeRange | None = Field(None, description=PERCENT)

    @model_validator(mode="before")
    @classmethod
    def _default(cls, data: Any) -> Any:
        """The default variance gives way to another way of stating the noise."""
        if isinstance(data, dict) and "variance" not in data and (data.get("sigma_hu") or data.get("percent")):
            return {**data, "variance": None}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> StatedSigma:
        given = [key for key in ("variance", "sigma_hu", "percent") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'}, expected one of variance, sigma_hu and percent")
        return self

    @property
    def modalities(self) -> tuple[str | None, ...]:
        if self.variance is not None:
            return super().modalities
        return ("CT",) if self.sigma_hu is not None else ("MR", "PT", None)

    @property
    def deviations(self) -> list[float]:
        """Least and most standard deviation: on [-1, 1], in HU, or in percent."""
        if self.variance is not None:
            return [math.sqrt(v) for v in bounds(self.variance)]
        stated = self.sigma_hu if self.sigma_hu is not None else self.percent
        assert stated is not None
        return list(bounds(stated))

    def sigma(self, stated: float, frame: Frame) -> float:
        """A standard deviation in the terms of ``deviations``, on [-1, 1]."""
        if self.variance is not None:
            return stated
        return frame.scale * (stated if self.sigma_hu is not None else frame.from_percent(stated))

    def sigma_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        least, most = self.deviations
        if self.variance is not None:
            return least, most
        return None if frame is None else (self.sigma(least, frame), self.sigma(most, frame))


@noise
class GaussianNoise(StatedSigma):
    """y = x0 + sigma n, stated in one of three ways. The parameter is the standard deviation in terms of that way.

    A range is drawn from uniform in the logarithm of sigma. y is not clipped: the noise stays Gaussian where the image
    touches -1 or 1.
    """

    type: Literal["gaussian"] = "gaussian"

    def draw(self, generator: torch.Generator) -> float:
        """A standard deviation: on [-1, 1], in HU, or in percent."""
        return draw_log_uniform(self.deviations, generator)

    def numbers(self, parameter: float, frame: Frame) -> Numbers:
        return {"sigma": self.sigma(parameter, frame)}

    def add(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        return x0 + per_image(drawn["sigma"], x0) * random.normal(*x0.shape[1:])

    def levels(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        return drawn["sigma"]

    def textures(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        return x0.new_zeros(len(x0), 2)

    def level(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> float:
        return self.sigma(parameter, frame)

    def correlations(self, x0: Tensor, y: Tensor, parameter: float, frame: Frame) -> tuple[float, float]:
        return 0.0, 0.0

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float]:
        return 0.0, 0.0

    def described(self) -> str:
        if self.variance is None:
            return super().described()
        deviations = list(dict.fromkeys(self.deviations))
        return f"gaussian, variance {shown(self.variance)} on [-1, 1] (standard deviation {shown(deviations)})"
