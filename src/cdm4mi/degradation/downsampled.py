"""Lower resolution: what a scan with larger pixels shows, on the grid of the clean image (super-resolution)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm4mi.degradation.base import Degradation, Frame, Range, bounds_of, draw_log_uniform


class Downsampled(Degradation[float]):
    """The slice at 1 / factor of its resolution along rows and columns, brought back to its grid; no noise is added.

    factor: size of a coarse pixel in pixels of the image, at least 1, or a (least, most) range, drawn uniform in its
    logarithm. n pixels become round(n / factor), at least one; a factor of 1 changes nothing.

    method ``average``: each coarse pixel is the mean over the area that it covers, as a detector element or a voxel
    integrates; then bicubic interpolation. ``kspace``, for MR: the lower resolution is a smaller part of k-space, so
    that round(n / factor) frequencies around 0 are kept, all others are zero, and the magnitude is taken (zero
    filling; the phase of the image is taken to be zero). Slices keep their thickness.
    """

    name = "downsampled"
    whole_slice = True  # the coarse pixels lie on the slice's grid, anywhere in a patch

    def __init__(self, factor: Range = 2.0, method: Literal["average", "kspace"] = "average") -> None:
        self.bounds = bounds_of(factor, "factor", least=1.0)
        self.method = method
        if method == "kspace":
            self.modalities = ("MR", None)

    def draw(self, generator: torch.Generator) -> float:
        """The factor."""
        return draw_log_uniform(self.bounds, generator)

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
