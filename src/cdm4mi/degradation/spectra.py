"""Power spectra that scanners and their reconstructions give to noise, by family, and the correlation they make."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from cdm4mi.degradation.base import draw_log_uniform
from cdm4mi.degradation.lazy_torch import Tensor, torch

Range = float | list[float]
"""A number, or the least and the most that a number is drawn from, uniform in its logarithm."""
NYQUIST = 0.5
"""Highest frequency along an axis, cycles per pixel."""
GRID = 64
"""Frequencies along each axis that correlations are summed over."""


class Spectrum(ABC):
    """A family of power spectra; ``draw`` takes one of it, as a few numbers.

    ranges: for some keys of ``defaults``, what to draw from in their place.
    """

    defaults: ClassVar[Mapping[str, Range]] = {}

    def __init__(self, **ranges: Range) -> None:
        self.ranges = {**self.defaults, **ranges}

    def draw(self, generator: torch.Generator) -> tuple[float, ...]:
        """The numbers of one spectrum, in the order that ``power`` takes them."""
        return tuple(draw_log_uniform(value, generator) for value in self.ranges.values())

    @staticmethod
    @abstractmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        """Power at the frequencies fy, fx (broadcast; cycles per pixel along rows' index and columns' index).

        numbers: each a number, or one for each of n spectra, (n, 1, 1). The power's scale is arbitrary.
        """


class White(Spectrum):
    """The same power at every frequency."""

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        return torch.ones_like(fy + fx)


class Smoothed(Spectrum):
    """White noise smoothed by a Gaussian of standard deviation ``smoothing`` pixels: interpolation, thick slices."""

    defaults: ClassVar[Mapping[str, Range]] = {"smoothing": [0.25, 1.3]}

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        (smoothing,) = numbers
        return torch.exp(-((2 * math.pi * smoothing) ** 2) * (fy.square() + fx.square()))


class ZeroFilled(Spectrum):
    """A box in k-space: MR measured on fewer frequencies than the image has pixels.

    cutoff: end of the box, cycles per pixel, at most 0.5. One third of the draws each fill along the columns' axis, the
    rows' axis, and both (with a cutoff for each).
    """

    defaults: ClassVar[Mapping[str, Range]] = {"cutoff": [0.22, NYQUIST]}

    def draw(self, generator: torch.Generator) -> tuple[float, ...]:
        """(cutoff along y, cutoff along x); 0.5 where an axis is measured in full."""
        filled = int(torch.randint(3, (), generator=generator, device=generator.device))
        y, x = (draw_log_uniform(self.ranges["cutoff"], generator) for _ in range(2))
        return (NYQUIST if filled == 0 else y), (NYQUIST if filled == 1 else x)

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        y, x = numbers
        return ZeroFilled._within(fy, y) * ZeroFilled._within(fx, x)

    @staticmethod
    def _within(f: Tensor, cutoff: Tensor | float) -> Tensor:
        """The share of each frequency's cell, as wide as their spacing, that lies within the cutoff."""
        spacing = (f.flatten()[1] - f.flatten()[0]).abs()
        share = ((cutoff - f.abs()) / spacing + 0.5).clamp(0, 1)
        return torch.where(torch.as_tensor(cutoff) >= NYQUIST, 1.0, share)


class CTKernel(Spectrum):
    """Noise of filtered backprojection: |f| A(f)^2, the ramp times the squared apodisation A of the kernel.

    Kijewski and Judy 1987, doi:10.1088/0031-9155/32/5/003, who also find that sampling by pixels keeps some power at
    f = 0: here ``FLOOR`` is added to |f|. A(f) = 2^-(f / cutoff)^order is one half at ``cutoff`` (cycles per pixel):
    low for a soft kernel or small pixels, high for a sharp one; a high ``order`` ends suddenly.
    """

    defaults: ClassVar[Mapping[str, Range]] = {"cutoff": [0.12, 0.6], "order": [1.5, 6.0]}
    FLOOR = 0.01

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        cutoff, order = numbers
        f = torch.sqrt(fy.square() + fx.square())
        return (f + CTKernel.FLOOR) * torch.exp2(-2 * (f / cutoff) ** order)


class Streaks(CTKernel):
    """``CTKernel`` in a body that is wider one way: rays along the width lose more photons, and their noise is streaks.

    By the central slice theorem a view's noise lies on the line through f = 0 across its rays; a view at the angle
    phi has the variance ratio^(cos^2 phi), as the path through an ellipse is longest one way. ratio: the noisiest
    view's variance over that of the quietest (exp(0.0192 x 100) = 7 where the body is 10 cm wider than it is deep).
    The direction is uniform.
    """

    defaults: ClassVar[Mapping[str, Range]] = {**CTKernel.defaults, "ratio": [3.0, 40.0]}

    def draw(self, generator: torch.Generator) -> tuple[float, ...]:
        """(cutoff, order, ratio, angle of the noisiest frequencies to the y axis in radians)."""
        angle = math.pi * float(torch.rand((), generator=generator, device=generator.device))
        return (*super().draw(generator), angle)

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        cutoff, order, ratio, angle = numbers
        angle = torch.as_tensor(angle)
        along = (fy * torch.cos(angle) + fx * torch.sin(angle)).square()
        share = along / (fy.square() + fx.square()).clamp(min=1e-12)  # cos^2 phi
        return CTKernel.power(fy, fx, cutoff, order) * ratio**share


class Pink(Spectrum):
    """Power 1 / |f|: drifts and physiological noise, and what a nonlinear denoiser leaves.

    Below ``LEAST`` cycles per pixel the power stays as it is there.
    """

    LEAST = 1 / 64

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: Tensor | float) -> Tensor:
        return 1 / torch.sqrt(fy.square() + fx.square()).clamp(min=Pink.LEAST)


SPECTRA: dict[str, type[Spectrum]] = {
    "white": White,
    "smoothed": Smoothed,
    "zero_filled": ZeroFilled,
    "ct_kernel": CTKernel,
    "streaks": Streaks,
    "pink": Pink,
}


def frequencies(rows: int, columns: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Frequencies (rows, 1) and (1, columns // 2 + 1) of a real image's half spectrum, cycles per pixel."""
    return torch.fft.fftfreq(rows, device=device)[:, None], torch.fft.rfftfreq(columns, device=device)[None, :]


def powers(spectrum: Spectrum, fy: Tensor, fx: Tensor, numbers: Tensor) -> Tensor:
    """Power of n spectra of a family, (n, rows, columns), of the numbers (n, k) of each."""
    power = spectrum.power(fy, fx, *(column[:, None, None] for column in numbers.unbind(1)))
    return power.expand(len(numbers), -1, -1)


def lags_one(spectrum: Spectrum, numbers: Tensor) -> Tensor:
    """Correlation of neighbouring pixels of noise with each of n spectra: (next row, next column), (n, 2).

    The sum over frequencies of power times cos(2 pi f), over that of the power (Wiener and Khinchin).
    """
    fy, fx = _grid(numbers.device)
    power = powers(spectrum, fy, fx, numbers)
    sums = [(power * torch.cos(2 * math.pi * f)).sum((1, 2)) for f in (fy, fx)]
    return torch.stack(sums, 1) / power.sum((1, 2))[:, None]


def lag_one(spectrum: Spectrum, numbers: tuple[float, ...]) -> tuple[float, float]:
    """``lags_one`` of one spectrum."""
    rows, columns = lags_one(spectrum, torch.tensor([numbers]))[0].tolist()
    return rows, columns


def blob_powers(spectrum: Spectrum, numbers: tuple[float, ...], areas: Sequence[float]) -> list[float]:
    """Power of noise with one spectrum at the frequencies of blobs of these areas in pixels, over that of white noise.

    The mean of the power, weighted by exp(-pi area f^2), over the mean of the power: the weight is the squared spectrum
    of a Gaussian as wide as a disc of the area, the squared sum of its values over the sum of their squares. A blob's
    contrast times the root of its area, over the noise level times the root of this, is d' of an observer that
    correlates the image with the blob (non-prewhitening; Barrett and Myers, Foundations of Image Science, 2004, 13.2).
    """
    fy, fx = _grid()
    power = powers(spectrum, fy, fx, torch.tensor([numbers]))
    weights = torch.exp(-math.pi * torch.tensor(areas)[:, None, None] * (fy.square() + fx.square()))
    seen: list[float] = ((power * weights).sum((1, 2)) / weights.sum((1, 2)) / power.mean()).tolist()
    return seen


def _grid(device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Frequencies (GRID, 1) and (1, GRID) in the middles of as many cells: none is at an edge."""
    middles = (torch.arange(GRID, device=device) - (GRID - 1) / 2) / GRID
    return middles[:, None], middles[None, :]
