"""PET at a fraction of the counts. Approximate: noise is made in the image, not in the scanner's projections."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""


class PetThinning(Degradation[float]):
    """Approximate: count noise of thinning to the fraction f, smoothed to the point spread, added to the activity A.

    With n = counts * A / reference expected events in a voxel at full count, keeping each with probability f and
    dividing by f adds noise of variance n (1 - f) / f. Here it is (P - m) (1 - f) / f with P ~ Poisson(m) and
    m = n f / (1 - f): this mean (zero) and variance exactly, and none at f = 1, as the noise of the full count is in
    the image already. It is then smoothed by a Gaussian of ``fwhm_mm``. Left out: projections, attenuation, randoms
    and scatter, and the reconstruction's own texture.

    count_fraction: f in (0, 1], or a (least, most) range, drawn uniform in its logarithm. counts: events at full count
    in a voxel at the reference, the window's upper end.
    """

    name = "pet"
    whole_slice = True  # a point spread reaches across the border of a patch
    modalities = ("PT", "MR", None)

    def __init__(self, count_fraction: Range = 0.25, counts: float = 100.0, fwhm_mm: float = 5.0) -> None:
        self.bounds = bounds_of(count_fraction, "count_fraction", most=1.0)
        if self.bounds[0] == 0 or counts <= 0:
            raise ValueError(f"count_fraction {self.bounds[0]:g} and counts {counts:g}: expected more than 0")
        self.counts, self.fwhm = counts, bounds_of(fwhm_mm, "fwhm_mm")[0]

    def draw(self, generator: torch.Generator) -> float:
        """The fraction of the counts."""
        return draw_log_uniform(self.bounds, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        if parameter >= 1:
            return x0.clone()
        unit = frame.high / self.counts  # activity of one event
        m = frame.physical(x0).clamp(min=0) / unit * parameter / (1 - parameter)
        events = torch.poisson(m.to(generator.device), generator=generator).to(x0.device)
        noise = (events - m) * (1 - parameter) / parameter * unit
        return x0 + gaussian_blur(noise, (self.fwhm / frame.spacing[0], self.fwhm / frame.spacing[1])) * frame.scale


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
