"""CT at a lower dose: the noise of fewer photons, made in the projections and added to a normal-dose slice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform
from cdm4mi.degradation.ct import ScanGeometry, fbp, project, variance_weights
from cdm4mi.degradation.ct.counts import log_variance, measured_error, thinned_error
from cdm4mi.degradation.ct.ramp import Filter
from cdm4mi.errors import UserError

MU_WATER = 0.0192
"""Attenuation of water in 1/mm, about 70 keV."""

PADDING_HU = -1024
"""What lies below was never reconstructed (padding outside the field of view) and keeps its value."""


class LowDoseCT(Degradation[float]):
    """y = x0 + FBP(p_hat - p): differential insertion, which keeps the kernel and the texture of the original.

    With p the line integrals of mu = MU_WATER (1 + HU / 1000), not below 0, and the dose d:
    N ~ Poisson(d i0 exp(-p)) + Normal(0, electronic), p_hat = -ln(max(N, 1) / (d i0)).

    dose: share of the scan's dose, a number or a (least, most) range. target_hu, instead: the standard deviation in HU
    of the noise that is added in the middle of the body (``middle_of_body``), from which the dose follows
    (``dose_for``). The parameter is the one that is given, drawn uniform in its logarithm. i0: photons a ray without
    the patient, at full dose. electronic: variance of the electronic noise, photons squared. views, geometry: see
    ScanGeometry. filter: of the noise alone.

    thinning: False takes the scan as free of noise, and adds all the noise of the dose d: with the noise that the scan
    has, the result is noisier than a scan at d (variance 1 / d + 1 for 1 / d; of little weight at d under 1 / 4).
    True takes the scan as one at i0 with the noise of i0 and adds what is missing: a binomial share d of its
    counts, and the electronic noise that such a share lost (Zeng et al., IEEE Trans. Nucl. Sci. 62, 2015; Yu et al.,
    J. Comput. Assist. Tomogr. 36, 2012). At d = 1 it adds nothing.

    Assumed: one energy, no bow-tie filter, no scatter, the same flux in all views (no tube current modulation), every
    slice by itself, nothing attenuates outside the slice. A slice that was clipped at the window's upper end attenuates
    less in its bones.
    """

    name = "low_dose_ct"
    whole_slice = True
    modalities = ("CT",)

    def __init__(
        self,
        dose: Range | None = None,
        target_hu: Range | None = None,
        i0: float = 1.5e5,
        electronic: float = 10.0,
        views: int = 720,
        geometry: Literal["parallel", "fan"] = "parallel",
        filter: Filter = "hann",
        thinning: bool = False,
    ) -> None:
        if (dose is None) == (target_hu is None):
            raise ValueError("low-dose CT: expected one of dose and target_hu")
        if i0 < 1 or electronic < 0:
            raise ValueError(
                f"low-dose CT: found i0 {i0:g}, electronic {electronic:g}, expected i0 >= 1, electronic >= 0"
            )
        self.by_target = dose is None
        if dose is not None:
            self.bounds = bounds_of(dose, "dose", most=1.0 if thinning else math.inf)
        elif target_hu is not None:
            self.bounds = bounds_of(target_hu, "target_hu")
        if self.bounds[0] <= 0:
            raise ValueError(f"low-dose CT: found {self.bounds[0]:g}, expected a dose or target above 0")
        self.i0, self.electronic, self.views = i0, electronic, views
        self.geometry, self.filter, self.thinning = geometry, filter, thinning

    def draw(self, generator: torch.Generator) -> float:
        """A dose as a share of the scan's, or a standard deviation in HU."""
        return draw_log_uniform(self.bounds, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        hu = frame.physical(x0).reshape(-1, *x0.shape[-2:])
        noise = self.noise_hu(hu, parameter, generator, frame.spacing)
        return x0 + noise.reshape(x0.shape) * frame.scale

    def noise_hu(
        self, hu: Tensor, parameter: float, generator: torch.Generator, spacing: tuple[float, float]
    ) -> Tensor:
        """The noise to add to slices (N, H, W) in HU, with pixels of ``spacing`` mm: (N, H, W) in HU.

        Slices are projected and drawn one after another, so that a slice's noise does not depend on those that follow
        it: the last bit of a line integral can change how many random numbers a Poisson number takes.
        """
        scan = ScanGeometry(hu.shape[1], hu.shape[2], spacing, self.views, self.geometry)
        error = hu.new_empty((len(hu), scan.views, scan.channels))
        for k in range(len(hu)):
            line = project(attenuation(hu[k : k + 1]), scan)[0]
            dose = self.dose_for(parameter, line, hu[k], scan) if self.by_target else parameter
            if self.thinning:
                drawn = thinned_error(line, self.i0, dose, self.electronic, generator)
            else:
                drawn = measured_error(line, dose * self.i0, self.electronic, generator)
            error[k] = drawn.to(hu.device)
        noise = fbp(error, scan, self.filter) * (1000 / MU_WATER)
        return noise.masked_fill(hu < PADDING_HU, 0.0)

    def dose_for(self, target_hu: float, line: Tensor, hu: Tensor, scan: ScanGeometry) -> float:
        """The dose at which the added noise has the standard deviation ``target_hu`` in the middle of the body.

        The expected one: a draw comes out a per cent or two beside it. ``line`` (views, channels) is the projection of
        the slice ``hu`` (H, W). Raises UserError where no dose gives as much.
        """
        # every eighth view tells enough, where their number can be divided and stays even, as a fan beam needs it
        step = max(1, math.gcd(scan.views, 16) // 2)
        weights = variance_weights(middle_of_body(hu), replace(scan, views=scan.views // step), self.filter) / step
        counts = self.i0 * torch.exp(-line[::step].double())
        used = weights > 0
        weights, counts = weights[used].double(), counts[used]
        already = (weights * log_variance(counts, self.electronic)).sum() if self.thinning else 0.0
        most = 0.0 if self.thinning else math.log(1e6)
        doses = torch.linspace(math.log(1e-6), most, 120, dtype=torch.float64).exp()
        variance = torch.stack([(weights * log_variance(d * counts, self.electronic)).sum() for d in doses]) - already
        variance = variance.cpu() * (1000 / MU_WATER) ** 2
        # with hardly a photon left the logarithm of max(N, 1) varies less again: only doses above the noisiest count
        noisiest = int(variance.argmax())
        if target_hu**2 > variance[noisiest]:
            most_hu = math.sqrt(variance[noisiest])
            raise UserError(f"target_hu: found {target_hu:g}, expected at most {most_hu:.0f} for this slice")
        # 1 / d is nearly a straight line over the variance
        inverse = np.interp(target_hu**2, variance[noisiest:].flip(0), 1 / doses[noisiest:].flip(0))
        return float(1 / inverse)


def attenuation(hu: Tensor) -> Tensor:
    """HU to linear attenuation in 1/mm, not below 0."""
    return (MU_WATER * (1 + hu / 1000)).clamp(min=0)


def middle_of_body(hu: Tensor) -> Tensor:
    """(H, W) HU to the mask of the pixels around the body's centroid, up to half its radius.

    The body is what is above -500 HU, and its radius that of a disc of its area. In air alone: the middle of the slice.
    """
    body = (hu > -500).double()
    area = float(body.sum())
    rows, columns = (torch.arange(n, dtype=torch.float64, device=hu.device) for n in hu.shape)
    if area < 16:
        area, centre = float(hu.numel()), ((hu.shape[0] - 1) / 2, (hu.shape[1] - 1) / 2)
    else:
        centre = float((body.sum(1) * rows).sum() / area), float((body.sum(0) * columns).sum() / area)
    radius = max(math.sqrt(area / math.pi) / 2, 1.0)
    return (rows[:, None] - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
