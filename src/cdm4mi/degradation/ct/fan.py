"""Fan beam from and to parallel beam: the rays of one are the rays of the other in another order.

The channel at s of the view beta is the parallel ray (theta = beta + asin(s / source_distance), s). With channels at
equal steps of s nothing is interpolated along s; along the views, which close to a circle, the Fourier shift is used,
which keeps the variance of white noise. Scanners rebin in the same way before they reconstruct.
"""

from __future__ import annotations

from cdm4mi.degradation.ct.geometry import ScanGeometry
from cdm4mi.degradation.lazy_torch import Tensor, torch


def fan_angles(scan: ScanGeometry) -> Tensor:
    """(channels,) gamma of each channel, radians."""
    return torch.asin(scan.positions() / scan.source_distance)


def shift_views(sinogram: Tensor, angle: Tensor) -> Tensor:
    """(N, V, D) over the full turn, read at the view's angle plus ``angle`` (D,) of each channel."""
    views = sinogram.shape[1]
    order = torch.arange(views // 2 + 1, dtype=torch.float64)[:, None]
    phase = torch.polar(torch.ones_like(order * angle), order * angle).to(sinogram.device, torch.complex64)
    shifted: Tensor = torch.fft.irfft(torch.fft.rfft(sinogram, dim=1) * phase, views, dim=1)
    return shifted


def full_turn(parallel: Tensor) -> Tensor:
    """(N, V, D) parallel views over half a turn to (N, 2V, D) over the full one: p(theta + pi, s) = p(theta, -s)."""
    return torch.cat([parallel, parallel.flip(-1)], dim=1)


def half_turn(parallel: Tensor) -> Tensor:
    """(N, V, D) parallel views over the full turn to (N, V/2, D) over half: a ray is the mean of its two."""
    first, second = parallel.chunk(2, dim=1)
    return (first + second.flip(-1)) / 2
