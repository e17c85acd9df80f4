"""Undersampled k-space: Cartesian lines left out at random, the image zero-filled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.section import AtLeastOneRange, Fraction


@noise
class Undersampled(Degradation):
    """|inverse FFT(mask FFT(A))| of the magnitude A in scanner units; each line is one frequency
    along the columns, with all frequencies along the rows.

    The acceleration is drawn uniform in its logarithm. The share ``centre`` of the lines (at least one line) is always
    kept; the rest is drawn without replacement. The phase of the image is taken to be zero.
    """

    type: Literal["undersampled"] = "undersampled"
    acceleration: AtLeastOneRange = Field(4.0, description="all lines over the lines that are kept")
    centre: Fraction = Field(0.08, description="share of all lines around k = 0 that is always kept")

    @property
    def whole_slice(self) -> bool:
        return True

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("MR", None)

    def draw(self, generator: torch.Generator) -> float:
        """The acceleration."""
        return draw_log_uniform(self.acceleration, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        mask = self.mask(int(x0.shape[-1]), parameter, generator).to(x0.device)
        kspace = torch.fft.fft2(frame.physical(x0)) * torch.fft.ifftshift(mask)
        magnitude: Tensor = torch.fft.ifft2(kspace).abs()
        return frame.normalised(magnitude)

    def mask(self, lines: int, acceleration: float, generator: torch.Generator) -> Tensor:
        """(lines,) of 0 and 1 with k = 0 at lines // 2: the centre, and round(lines / acceleration) ones in all."""
        middle = max(1, round(self.centre * lines))
        first = lines // 2 - middle // 2
        outside = torch.cat([torch.arange(first), torch.arange(first + middle, lines)])
        extra = max(0, round(lines / acceleration) - middle)
        order = torch.randperm(len(outside), generator=generator, device=generator.device).cpu()
        mask = torch.zeros(lines)
        mask[first : first + middle] = 1.0
        mask[outside[order[:extra]]] = 1.0
        return mask
