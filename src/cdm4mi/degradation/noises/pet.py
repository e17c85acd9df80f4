"""PET at a fraction of the counts. Approximate: noise is made in the image, not in the scanner's projections."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.lazy_torch import F, Tensor, torch
from cdm4mi.section import NonNegative, Positive, ShareRange

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""


@noise
class PetThinning(Degradation):
    """Approximate: count noise of thinning to the fraction f, smoothed to the point spread, added to the activity A.

    With n = counts * A / reference expected events in a voxel at full count, keeping each with probability f and
    dividing by f adds noise of variance n (1 - f) / f. Here it is (P - m) (1 - f) / f with P ~ Poisson(m) and
    m = n f / (1 - f): this mean (zero) and variance exactly, and none at f = 1, as the noise of the full count is in
    the image already. It is then smoothed by a Gaussian of ``fwhm_mm``. Left out: projections, attenuation, randoms
    and scatter, and the texture of the reconstruction. f is drawn uniform in its logarithm.
    """

    type: Literal["pet"] = "pet"
    count_fraction: ShareRange = Field(0.25, description="share of the events that is kept")
    counts: Positive = Field(100.0, description="events at full count in a voxel at the window's upper end")
    fwhm_mm: NonNegative = Field(5.0, description="full width at half maximum of the point spread, mm")

    @property
    def whole_slice(self) -> bool:
        return True  # a point spread reaches across the border of a patch

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("PT", "MR", None)

    def draw(self, generator: torch.Generator) -> float:
        """The fraction of the counts."""
        return draw_log_uniform(self.count_fraction, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        if parameter >= 1:
            return x0.clone()
        unit = frame.high / self.counts  # activity of one event
        m = frame.physical(x0).clamp(min=0) / unit * parameter / (1 - parameter)
        events = torch.poisson(m.to(generator.device), generator=generator).to(x0.device)
        noise = (events - m) * (1 - parameter) / parameter * unit
        fwhm = self.fwhm_mm / frame.spacing[0], self.fwhm_mm / frame.spacing[1]
        return x0 + gaussian_blur(noise, fwhm) * frame.scale


def gaussian_blur(image: Tensor, fwhm: tuple[float, float]) -> Tensor:
    """image (..., H, W) smoothed by a Gaussian of the full widths ``fwhm`` in pixels along (rows, columns).

    Borders are continued by their last pixel.
    """
    out = image.reshape(-1, 1, *image.shape[-2:])
    for axis, width in enumerate(fwhm):
        sigma = width / FWHM
        reach = math.ceil(4 * sigma)
        if reach == 0:
            continue
        x = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
        kernel = torch.exp(-0.5 * (x / sigma) ** 2)
        kernel = (kernel / kernel.sum()).reshape(1, 1, *((-1, 1) if axis == 0 else (1, -1)))
        pad = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        out = F.conv2d(F.pad(out, pad, mode="replicate"), kernel)
    return out.reshape(image.shape)
