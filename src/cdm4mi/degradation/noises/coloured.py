"""Gaussian noise with the spectrum that a scanner gives it: signed, or in the magnitude of a complex image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from cdm4mi.degradation.base import Drawn, Frame, Numbers, RandomNumbers, draw_log_uniform, noise, per_image
from cdm4mi.degradation.lazy_torch import F, Tensor, torch
from cdm4mi.degradation.noises.gaussian import StatedSigma
from cdm4mi.degradation.noises.noncentral_chi import WINDOW, second_moment_correction
from cdm4mi.degradation.spectra import SPECTRA, Spectrum, blob_powers, frequencies, lag_one, lags_one, powers
from cdm4mi.degradation.varying import smooth_maps
from cdm4mi.section import AtLeastOneRange, Fraction, FractionRange, PositiveRange

PROBES = 64
"""Spectra that are drawn to see how far those of a configuration reach."""
MARGIN = 16
"""Pixels beyond the image that noise is made on, so that its opposite edges are not neighbours."""


class Texture(NamedTuple):
    """What is drawn for one image.

    sigma: in terms of the way it is stated; numbers: of the spectrum; variation: of the level over the image;
    magnitude: whether the magnitude of complex noise is taken.
    """

    sigma: float
    numbers: tuple[float, ...]
    variation: float
    magnitude: bool


@noise
class ColouredNoise(StatedSigma):
    """y = x0 + sigma g n: n is Gaussian noise of unit variance with a power spectrum, g a smooth map of mean square 1.

    ``spectrum`` names a family of ``spectra.SPECTRA``; ``smoothing``, ``cutoff``, ``order`` and ``ratio`` are its keys.
    All ranges are drawn from uniform in the logarithm. g runs over what it is given (``smooth_map``), a patch too,
    where sigma is then the root mean square.

    A ``magnitude`` is the root sum of squares of the real and imaginary parts of ``coils`` coils, with such noise each,
    as in ``MagnitudeNoise``. The level is sigma: that of bright tissue.
    """

    type: Literal["coloured"] = "coloured"
    spectrum: Literal["white", "smoothed", "zero_filled", "ct_kernel", "streaks", "pink"] = Field(
        "smoothed",
        description="white; smoothed by a Gaussian; zero_filled (MR): outer k-space zero; ct_kernel: of filtered "
        "backprojection; streaks: that of a wide body; pink: 1 / f",
    )
    smoothing: PositiveRange | None = Field(
        None, description="of smoothed: standard deviation of the Gaussian, pixels (0.25 to 1.3)"
    )
    cutoff: PositiveRange | None = Field(
        None,
        description="cycles per pixel: of zero_filled, the last that is measured (0.22 to 0.5); of ct_kernel and "
        "streaks, where the kernel is one half (0.12 to 0.6)",
    )
    order: PositiveRange | None = Field(
        None, description="of ct_kernel and streaks: how suddenly the kernel ends (1.5 to 6)"
    )
    ratio: AtLeastOneRange | None = Field(
        None, description="of streaks: variance of the noisiest view over that of the quietest (3 to 40)"
    )
    variation: FractionRange = Field(
        0.0, description="how far the standard deviation runs up and down over the image, 0 to 1"
    )
    magnitude: Fraction = Field(0.0, description="share of the images that are magnitudes (MR), as Rician noise has")
    coils: Annotated[int, Field(ge=1, le=128)] = Field(1, description="receiver coils of a magnitude")

    @model_validator(mode="after")
    def _suited(self) -> ColouredNoise:
        if self.sigma_hu is not None and self.magnitude > 0:
            raise ValueError("magnitude is given with sigma_hu, expected variance or percent: it is of MR")
        for key in ("smoothing", "cutoff", "order", "ratio"):
            if getattr(self, key) is not None and key not in SPECTRA[self.spectrum].defaults:
                names = " or ".join(name for name, family in SPECTRA.items() if key in family.defaults)
                raise ValueError(f"{key} is given with spectrum {self.spectrum}, expected {names}")
        return self

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("MR", "PT", None) if self.magnitude > 0 else super().modalities

    @property
    def family(self) -> Spectrum:
        """The family of spectra, with the ranges of this noise."""
        keys = SPECTRA[self.spectrum].defaults
        return SPECTRA[self.spectrum](**{k: v for k in keys if (v := getattr(self, k)) is not None})

    def draw(self, generator: torch.Generator) -> Texture:
        """Standard deviation, spectrum, variation, and whether it is a magnitude."""
        sigma = draw_log_uniform(self.deviations, generator)
        numbers = self.family.draw(generator)
        variation = draw_log_uniform(self.variation, generator)
        magnitude = self.magnitude == 1
        if 0 < self.magnitude < 1:
            magnitude = float(torch.rand((), generator=generator)) < self.magnitude
        return Texture(sigma, numbers, variation, magnitude)

    @property
    def group(self) -> Hashable:
        return self.type, self.spectrum, self.magnitude, self.coils, bool(self.variation)

    def chosen(self, parameter: Texture, frame: Frame) -> tuple[ColouredNoise, Texture]:
        """Of magnitudes and signed images the one that was drawn."""
        share = float(parameter.magnitude)
        return (self if self.magnitude == share else self.model_copy(update={"magnitude": share})), parameter

    def numbers(self, parameter: Texture, frame: Frame) -> Numbers:
        """Of sigma, of the map of sigma, of the spectrum, and of the value of no signal."""
        return {
            "sigma": self.sigma(parameter.sigma, frame),
            "variation": parameter.variation,
            "spectrum": parameter.numbers,
            "zero": frame.normalised(0.0),
        }

    def noise_free_batch(self, x0: Tensor, drawn: Drawn) -> Tensor:
        """x0 without the frequencies that zero-filling leaves out; of a magnitude the absolute value."""
        if self.spectrum != "zero_filled":
            return x0
        rows, columns = x0.shape[-2:]
        margin = min(MARGIN, rows - 1, columns - 1)
        image = F.pad(x0.reshape(len(x0), -1, rows, columns), (margin,) * 4, mode="reflect")
        box = powers(self.family, *frequencies(image.shape[-2], image.shape[-1], x0.device), drawn["spectrum"])[:, None]
        image = torch.fft.irfft2(torch.fft.rfft2(image) * box, s=image.shape[-2:])
        image = image[..., margin : margin + rows, margin : margin + columns].reshape(x0.shape)
        zero = per_image(drawn["zero"], x0)
        filled: Tensor = zero + (image - zero).abs() if self.magnitude else image
        return filled

    def add(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        sigma = per_image(drawn["sigma"], x0) * self.relative_levels(x0, drawn, random)
        if not self.magnitude:
            return x0 + sigma * self.noise(x0.shape[1:], drawn["spectrum"], random)
        zero = per_image(drawn["zero"], x0)
        noise = sigma[:, None] * self.noise((2 * self.coils, *x0.shape[1:]), drawn["spectrum"], random)
        noise[:, 0] += (x0 - zero).clamp(min=0)
        return zero + noise.square().sum(1).sqrt()

    def relative_levels(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        if not self.variation:
            return super().relative_levels(x0, drawn, random)
        return smooth_maps(x0, drawn["variation"], random)

    def levels(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        return drawn["sigma"]

    def textures(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        return lags_one(self.family, drawn["spectrum"])

    def level(self, x0: Tensor, y: Tensor, parameter: Texture, frame: Frame) -> float:
        return self.sigma(parameter.sigma, frame)

    def correlations(self, x0: Tensor, y: Tensor, parameter: Texture, frame: Frame) -> tuple[float, float]:
        """Those of bright tissue, from the spectrum."""
        return lag_one(self.family, parameter.numbers)

    def blob_powers(self, parameter: Texture, areas: Sequence[float]) -> list[float]:
        return blob_powers(self.family, parameter.numbers, areas)

    def is_magnitude(self, parameter: Texture, frame: Frame) -> bool:
        return parameter.magnitude

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float]:
        """Those of ``PROBES`` spectra of the family."""
        generator = torch.Generator().manual_seed(0)
        found = [sum(lag_one(self.family, self.family.draw(generator))) / 2 for _ in range(PROBES)]
        return min(found), max(found)

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """Magnitudes after the signed ``second_moment_correction``, where every image is one; else y."""
        if self.magnitude < 1:
            return y
        return second_moment_correction(y - zero, level, self.coils, WINDOW, signed=True) + zero

    def noise(self, shape: Sequence[int], numbers: Tensor, random: RandomNumbers) -> Tensor:
        """Unit Gaussian noise of n images, (n, *shape), with the spectra of the family that have ``numbers``, (n, k).

        shape: (..., H, W), every plane of which has noise by itself. White noise on a larger grid is multiplied by the
        root of the power at each frequency and cut out: the discrete Fourier transform takes its grid for a torus,
        whose opposite edges would be alike.
        """
        rows, columns = shape[-2:]
        if self.spectrum == "white":
            return random.normal(*shape)
        grid = fast_length(rows + MARGIN), fast_length(columns + MARGIN)
        power = powers(self.family, *frequencies(*grid, numbers.device), numbers)
        # the half spectrum counts twice, but for frequencies along x that are their own negative
        twice = torch.full((grid[1] // 2 + 1,), 2.0, device=numbers.device)
        twice[:: grid[1] // 2 if grid[1] % 2 == 0 else len(twice)] = 1.0
        response = torch.sqrt(power * (grid[0] * grid[1] / (power * twice).sum((1, 2), keepdim=True)))
        white = random.normal(*shape[:-2], *grid)
        response = response.reshape(-1, *(1 for _ in shape[:-2]), *response.shape[1:])
        shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * response, s=grid)
        return shaped[..., :rows, :columns]


def fast_length(n: int) -> int:
    """The least number of at least n pixels without a prime factor above 5, whose Fourier transform is fast."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
