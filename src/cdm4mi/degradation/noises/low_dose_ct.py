"""CT at a lower dose: the noise of fewer photons, made in the projections and added to a normal-dose slice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.ct import ScanGeometry, fbp, project, variance_weights
from cdm4mi.degradation.ct.counts import log_variance, measured_error, thinned_error
from cdm4mi.degradation.ct.ramp import Filter
from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.errors import UserError
from cdm4mi.section import NonNegative, PositiveRange, ShareRange

MU_WATER = 0.0192
"""Attenuation of water in 1/mm, about 70 keV."""

PADDING_HU = -1024
"""What lies below was never reconstructed (padding outside the field of view) and keeps its value."""


@noise
class LowDoseCT(Degradation):
    """y = x0 + FBP(p_hat - p): differential insertion, which keeps the kernel and the texture of the original.

    With p the line integrals of mu = MU_WATER (1 + HU / 1000), not below 0, and the dose d:
    N ~ Poisson(d i0 exp(-p)) + Normal(0, electronic), p_hat = -ln(max(N, 1) / (d i0)).

    The parameter is the dose, or the target_hu that is given in its place, drawn uniform in its logarithm. target_hu:
    the noise in the middle of the body (``middle_of_body``), from which the dose follows (``dose_for``). views,
    geometry: see ScanGeometry. filter: of the noise alone.

    thinning: False takes the scan as free of noise, and adds all the noise of the dose d: with the noise that the scan
    has, the result is noisier than a scan at d (variance 1 / d + 1 for 1 / d; of little weight at d under 1 / 4).
    True takes the scan as one at i0 with the noise of i0 and adds what is missing: a binomial share d of its
    counts, and the electronic noise that such a share lost (Zeng et al., IEEE Trans. Nucl. Sci. 62, 2015; Yu et al.,
    J. Comput. Assist. Tomogr. 36, 2012). At d = 1 it adds nothing.

    Assumed: one energy, no bow-tie filter, no scatter, the same flux in all views (no tube current modulation), every
    slice by itself, nothing attenuates outside the slice. A slice that was clipped at the window's upper end attenuates
    less in its bones.
    """

    type: Literal["low_dose_ct"] = "low_dose_ct"
    dose: ShareRange | None = Field(0.25, description="share of the scan's dose")
    target_hu: PositiveRange | None = Field(
        None,
        description="in place of dose: standard deviation in HU of what is added in the middle of the body (over the "
        "whole scan, air and all, it is less)",
    )
    i0: Annotated[float, Field(ge=1)] = Field(1.5e5, description="photons a ray without the patient, at full dose")
    electronic: NonNegative = Field(10.0, description="variance of the electronic noise, in photons squared")
    views: Annotated[int, Field(ge=8)] = Field(720, description="projections")
    geometry: Literal["parallel", "fan"] = Field("parallel", description="parallel or fan beam")
    filter: Filter = Field("hann", description="window of the ramp filter of the noise, ram-lak (none) or hann")
    thinning: bool = Field(
        False, description="true where the scan has the noise of i0 already: add only what is missing"
    )

    @model_validator(mode="before")
    @classmethod
    def _default(cls, data: Any) -> Any:
        """The default dose gives way to a target."""
        if isinstance(data, dict) and "dose" not in data and data.get("target_hu"):
            return {**data, "dose": None}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> LowDoseCT:
        if (self.dose is None) == (self.target_hu is None):
            found = "dose and target_hu" if self.dose is not None else "none"
            raise ValueError(f"found {found}, expected one of dose and target_hu")
        return self

    @property
    def whole_slice(self) -> bool:
        return True

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("CT",)

    def draw(self, generator: torch.Generator) -> float:
        """A dose as a share of the scan's, or a standard deviation in HU."""
        stated = self.dose if self.dose is not None else self.target_hu
        assert stated is not None
        return draw_log_uniform(stated, generator)

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
            dose = self.dose_for(parameter, line, hu[k], scan) if self.dose is None else parameter
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
