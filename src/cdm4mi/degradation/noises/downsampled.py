"""Lower resolution: what a scan with larger pixels shows, on the grid of the clean image (super-resolution)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdm4mi.degradation.base import Degradation, Frame, draw_log_uniform, noise
from cdm4mi.degradation.lazy_torch import F, Tensor, torch
from cdm4mi.section import AtLeastOneRange


@noise
class Downsampled(Degradation):
    """The slice at 1 / factor of its resolution along rows and columns, brought back to its grid; no noise is added.

    The factor is the size of a coarse pixel in pixels of the image, drawn uniform in its logarithm. n pixels become
    round(n / factor), at least one; a factor of 1 changes nothing.

    method ``average``: each coarse pixel is the mean over the area that it covers, as a detector element or a voxel
    integrates; then bicubic interpolation. ``kspace``, for MR: the lower resolution is a smaller part of k-space, so
    that round(n / factor) frequencies around 0 are kept, all others are zero, and the magnitude is taken (zero
    filling; the phase of the image is taken to be zero). Slices keep their thickness.
    """

    type: Literal["downsampled"] = "downsampled"
    factor: AtLeastOneRange = Field(2.0, description="pixel size over that of the clean image, in-plane")
    method: Literal["average", "kspace"] = Field(
        "average", description="average (means over blocks, interpolated) or kspace (MR: outer k-space zeroed)"
    )

    @property
    def whole_slice(self) -> bool:
        return True  # the coarse pixels lie on the slice's grid, anywhere in a patch

    @property
    def modalities(self) -> tuple[str | None, ...]:
        return ("MR", None) if self.method == "kspace" else super().modalities

    def draw(self, generator: torch.Generator) -> float:
        """The factor."""
        return draw_log_uniform(self.factor, generator)

    def apply(self, x0: Tensor, parameter: float, generator: torch.Generator, frame: Frame) -> Tensor:
        rows, columns = x0.shape[-2:]
        kept = max(1, round(rows / parameter)), max(1, round(columns / parameter))
        if kept == (rows, columns):
            return x0.clone()
        if self.method == "kspace":
            return frame.normalised(_band_limited(frame.physical(x0), kept))
        coarse = F.adaptive_avg_pool2d(x0.reshape(-1, 1, rows, columns), kept)
        # antialias chooses the cubic of Catmull and Rom (a = -0.5), which keeps a ramp straight; torch's other does not
        return F.interpolate(coarse, size=(rows, columns), mode="bicubic", antialias=True).reshape(x0.shape)


def _band_limited(image: Tensor, kept: tuple[int, int]) -> Tensor:
    """The magnitude of an image of whose k-space the central ``kept`` (rows, columns) frequencies remain."""
    kspace = torch.fft.fft2(image)
    for axis, count in zip((-2, -1), kept, strict=True):
        n = image.shape[axis]
        mask = torch.zeros(n, device=image.device)
        first = n // 2 - count // 2
        mask[first : first + count] = 1.0
        kspace = kspace * torch.fft.ifftshift(mask).reshape((-1, 1) if axis == -2 else (1, -1))
    limited: Tensor = torch.fft.ifft2(kspace).abs()
    return limited
