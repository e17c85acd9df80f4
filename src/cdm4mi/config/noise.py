"""The section ``data.noise``: one class of keys for each type of degradation, chosen by ``type``."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cdm4mi.config.section import (
    AtLeastOneRange,
    Fraction,
    FractionRange,
    NonNegative,
    NonNegativeRange,
    Positive,
    PositiveRange,
    Section,
    ShareRange,
)

Window = tuple[float, float]
"""Physical units that map to -1 and +1."""

PERCENT = "standard deviation in percent of the reference, the window's upper end; a pair is a range"


class NoiseSection(Section):
    """Base of the types. A key that takes a number takes a pair too: a range that is drawn from for each image."""

    type: str

    def deviations(self, window: Window | None = None) -> tuple[float, float] | None:
        """Least and most standard deviation on [-1, 1] of what this makes of an image with this window.

        None where it cannot be known without the image.
        """
        return None

    def described(self) -> str:
        """The keys that are set, in words."""
        keys = ((key, value) for key, value in self if key != "type" and value is not None)
        return ", ".join([self.type, *(f"{key} {_words(value)}" for key, value in keys)])


class GaussianConfig(NoiseSection):
    """White Gaussian noise, stated in one of three ways."""

    type: Literal["gaussian"] = "gaussian"
    variance: NonNegativeRange | None = Field(
        0.01, description="on [-1, 1]; a pair is a range that is drawn from, uniform in the logarithm of sigma"
    )
    sigma_hu: NonNegativeRange | None = Field(None, description="CT: standard deviation in HU; a pair is a range")
    percent: NonNegativeRange | None = Field(None, description=f"MR, PET: {PERCENT}")

    @model_validator(mode="before")
    @classmethod
    def _default(cls, data: Any) -> Any:
        """The default variance gives way to another way of saying it."""
        if isinstance(data, dict) and "variance" not in data and (data.get("sigma_hu") or data.get("percent")):
            return {**data, "variance": None}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> GaussianConfig:
        given = [key for key in ("variance", "sigma_hu", "percent") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'}, expected one of variance, sigma_hu and percent")
        return self

    @property
    def unit(self) -> Literal["variance", "sigma_hu", "percent"]:
        """The key that is given."""
        return "variance" if self.variance is not None else "sigma_hu" if self.sigma_hu is not None else "percent"

    def deviations(self, window: Window | None = None) -> tuple[float, float] | None:
        if self.variance is not None:
            low, high = bounds(self.variance)
            return math.sqrt(low), math.sqrt(high)
        if self.sigma_hu is not None:
            return _scaled(self.sigma_hu, window, 1.0)
        return _scaled(self.percent, window, 0.0 if window is None else window[1] / 100)

    def described(self) -> str:
        if self.variance is None:
            return super().described()
        deviations = list(dict.fromkeys(math.sqrt(v) for v in bounds(self.variance)))
        return f"gaussian, variance {_words(self.variance)} on [-1, 1] (standard deviation {_words(deviations)})"


class SaltAndPepperConfig(NoiseSection):
    """Pixels lost to the ends of the scale."""

    type: Literal["salt_and_pepper"] = "salt_and_pepper"
    fraction: FractionRange = Field(0.05, description="share of the pixels")
    extremes: Literal["both", "salt", "pepper"] = Field(
        "both", description="salt: lost to the upper end only; pepper: to the lower end only; both: equally likely"
    )


class SpeckleConfig(NoiseSection):
    """Noise in proportion to the pixel's value."""

    type: Literal["speckle"] = "speckle"
    relative: NonNegativeRange = Field(0.1, description="standard deviation as a share of the pixel's value")


class _MagnitudeSection(NoiseSection):
    """The keys that noise of MR magnitude images has in common."""

    percent: NonNegativeRange = Field(5.0, description=PERCENT)
    variation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="how far the level runs up and down over the image"
    )

    def deviations(self, window: Window | None = None) -> tuple[float, float] | None:
        return _scaled(self.percent, window, 0.0 if window is None else window[1] / 100)


class RicianConfig(_MagnitudeSection):
    """Noise of an MR magnitude image of one coil."""

    type: Literal["rician"] = "rician"


class NoncentralChiConfig(_MagnitudeSection):
    """Noise of an MR magnitude image of several coils."""

    type: Literal["noncentral_chi"] = "noncentral_chi"
    coils: Annotated[int, Field(ge=1, le=128)] = 8


class UndersampledConfig(NoiseSection):
    """k-space lines left out."""

    type: Literal["undersampled"] = "undersampled"
    acceleration: AtLeastOneRange = Field(4.0, description="all lines over the lines that are kept")
    centre: Fraction = Field(0.08, description="share of all lines around k = 0 that is always kept")


class DownsampledConfig(NoiseSection):
    """In-plane resolution lost, on the grid of the clean image: super-resolution."""

    type: Literal["downsampled"] = "downsampled"
    factor: AtLeastOneRange = Field(2.0, description="pixel size over that of the clean image")
    method: Literal["average", "kspace"] = Field(
        "average", description="average: means over blocks, interpolated; kspace (MR): outer k-space zeroed"
    )


class PetConfig(NoiseSection):
    """PET at a fraction of the counts, approximate."""

    type: Literal["pet"] = "pet"
    count_fraction: ShareRange = Field(0.25, description="share of the events that is kept")
    counts: Positive = Field(100.0, description="events at full count in a voxel at the window's upper end")
    fwhm_mm: NonNegative = Field(5.0, description="full width at half maximum of the point spread")


class LowDoseCTConfig(NoiseSection):
    """CT at a fraction of the dose, through projections."""

    type: Literal["low_dose_ct"] = "low_dose_ct"
    dose: ShareRange | None = Field(0.25, description="share of the scan's dose; a pair is a range")
    target_hu: PositiveRange | None = Field(None, description="instead of dose: standard deviation of the added noise")
    i0: Annotated[float, Field(ge=1)] = Field(1.5e5, description="photons a ray without the patient, at full dose")
    electronic: NonNegative = Field(10.0, description="variance of the electronic noise, in photons squared")
    views: Annotated[int, Field(ge=8)] = 720
    geometry: Literal["parallel", "fan"] = "parallel"
    filter: Literal["ram-lak", "hann"] = "hann"
    thinning: bool = Field(False, description="the scan has the noise of i0 already: add only what is missing")

    @model_validator(mode="before")
    @classmethod
    def _default(cls, data: Any) -> Any:
        if isinstance(data, dict) and "dose" not in data and data.get("target_hu"):
            return {**data, "dose": None}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> LowDoseCTConfig:
        if (self.dose is None) == (self.target_hu is None):
            found = "dose and target_hu" if self.dose is not None else "none"
            raise ValueError(f"found {found}, expected one of dose and target_hu")
        return self


class IdentityConfig(NoiseSection):
    """No noise of its own: real pairs."""

    type: Literal["identity"] = "identity"


class CompositionConfig(NoiseSection):
    """Several, one after another."""

    type: Literal["composition"] = "composition"
    parts: Annotated[list[NoiseConfig], Field(min_length=1)] = Field(description="a noise section each, in order")

    def described(self) -> str:
        return " + ".join(part.described() for part in self.parts)


def _type(value: Any) -> str | None:
    """The type that a noise section names; Gaussian where it names none."""
    found = value.get("type", "gaussian") if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


NoiseConfig = Annotated[
    Annotated[GaussianConfig, Tag("gaussian")]
    | Annotated[SaltAndPepperConfig, Tag("salt_and_pepper")]
    | Annotated[SpeckleConfig, Tag("speckle")]
    | Annotated[RicianConfig, Tag("rician")]
    | Annotated[NoncentralChiConfig, Tag("noncentral_chi")]
    | Annotated[UndersampledConfig, Tag("undersampled")]
    | Annotated[DownsampledConfig, Tag("downsampled")]
    | Annotated[LowDoseCTConfig, Tag("low_dose_ct")]
    | Annotated[PetConfig, Tag("pet")]
    | Annotated[CompositionConfig, Tag("composition")]
    | Annotated[IdentityConfig, Tag("identity")],
    Discriminator(_type),
]
CompositionConfig.model_rebuild()


def bounds(value: float | list[float]) -> tuple[float, float]:
    """Least and most of a number or a pair."""
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def _scaled(value: float | list[float] | None, window: Window | None, unit: float) -> tuple[float, float] | None:
    """A number or pair, times what its unit is in physical units, on [-1, 1]."""
    if value is None or window is None:
        return None
    scale = 2 / (window[1] - window[0]) * unit
    low, high = bounds(value)
    return low * scale, high * scale


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_words(v) for v in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
