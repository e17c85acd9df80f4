"""Power spectra that scanners and their reconstructions give to noise, by family, and the correlation they make."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
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
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
        """Power at the frequencies fy, fx (broadcast; cycles per pixel along rows' index and columns' index).

        Its scale is arbitrary.
        """


class White(Spectrum):
    """The same power at every frequency."""

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
        return torch.ones_like(fy + fx)


class Smoothed(Spectrum):
    """White noise smoothed by a Gaussian of standard deviation ``smoothing`` pixels: interpolation, thick slices."""

    defaults: ClassVar[Mapping[str, Range]] = {"smoothing": [0.25, 1.3]}

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
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
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
        y, x = numbers
        return ZeroFilled._within(fy, y) * ZeroFilled._within(fx, x)

    @staticmethod
    def _within(f: Tensor, cutoff: float) -> Tensor:
        """The share of each frequency's cell, as wide as their spacing, that lies within the cutoff."""
        if cutoff >= NYQUIST:
            return torch.ones_like(f)
        spacing = (f.flatten()[1] - f.flatten()[0]).abs()
        return ((cutoff - f.abs()) / spacing + 0.5).clamp(0, 1)


class CTKernel(Spectrum):
    """Noise of filtered backprojection: |f| A(f)^2, the ramp times the squared apodisation A of the kernel.

    Kijewski and Judy 1987, doi:10.1088/0031-9155/32/5/003, who also find that sampling by pixels keeps some power at
    f = 0: here ``FLOOR`` is added to |f|. A(f) = 2^-(f / cutoff)^order is one half at ``cutoff`` (cycles per pixel):
    low for a soft kernel or small pixels, high for a sharp one; a high ``order`` ends suddenly.
    """

    defaults: ClassVar[Mapping[str, Range]] = {"cutoff": [0.12, 0.6], "order": [1.5, 6.0]}
    FLOOR = 0.01

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
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
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
        cutoff, order, ratio, angle = numbers
        along = (fy * math.cos(angle) + fx * math.sin(angle)).square()
        share = along / (fy.square() + fx.square()).clamp(min=1e-12)  # cos^2 phi
        return CTKernel.power(fy, fx, cutoff, order) * ratio**share


class Pink(Spectrum):
    """Power 1 / |f|: drifts and physiological noise, and what a nonlinear denoiser leaves.

    Below ``LEAST`` cycles per pixel the power stays as it is there.
    """

    LEAST = 1 / 64

    @staticmethod
    def power(fy: Tensor, fx: Tensor, *numbers: float) -> Tensor:
        return 1 / torch.sqrt(fy.square() + fx.square()).clamp(min=Pink.LEAST)


SPECTRA: dict[str, type[Spectrum]] = {
    "white": White,
    "smoothed": Smoothed,
    "zero_filled": ZeroFilled,
    "ct_kernel": CTKernel,
    "streaks": Streaks,
    "pink": Pink,
}


def frequencies(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Frequencies (rows, 1) and (1, columns // 2 + 1) of a real image's half spectrum, cycles per pixel."""
    return torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(columns)[None, :]


def lag_one(spectrum: Spectrum, numbers: tuple[float, ...]) -> tuple[float, float]:
    """Correlation of neighbouring pixels of noise with this spectrum: (next row, next column).

    The sum over frequencies of power times cos(2 pi f), over that of the power (Wiener and Khinchin).
    """
    f = (torch.arange(GRID) - (GRID - 1) / 2) / GRID  # the middles of GRID cells: no frequency is at an edge
    fy, fx = f[:, None], f[None, :]
    power = spectrum.power(fy, fx, *numbers)
    total = power.sum()
    rows, columns = ((power * torch.cos(2 * math.pi * f)).sum() / total for f in (fy, fx))
    return float(rows), float(columns)
