"""Undersampled k-space: Cartesian lines left out at random, the image zero-filled."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform


class Undersampled(Degradation[float]):
    """|inverse FFT(mask FFT(A))| of the magnitude A in scanner units; each line is one frequency
    along the columns, with all frequencies along the rows.

    acceleration: all lines over the lines kept, at least 1, or a (least, most) range, drawn uniform in its logarithm.
    centre: the share of all lines around k = 0 that is always kept (at least one line); the rest is drawn without
    replacement. The phase of the image is taken to be zero.
    """

    name = "undersampled"
    whole_slice = True
    modalities = ("MR", None)

    def __init__(self, acceleration: Range = 4.0, centre: float = 0.08) -> None:
        self.bounds = bounds_of(acceleration, "acceleration", least=1.0)
        self.centre = bounds_of(centre, "centre", most=1.0)[0]

    def draw(self, generator: torch.Generator) -> float:
        """The acceleration."""
        return draw_log_uniform(self.bounds, generator)

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
