"""Forward projection and filtered backprojection of CT slices, parallel and fan beam, on CPU or GPU.

Projection is Joseph's method (IEEE Trans. Med. Imaging 1, 1982): a ray takes one linearly interpolated sample of each
row that it crosses, or of each column where it runs closer to the rows. Backprojection is pixel driven. Everything is
computed slice by slice in float32: a slice gives the same values in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from cdm4mi.degradation.ct import fan
from cdm4mi.degradation.ct.geometry import ScanGeometry
from cdm4mi.degradation.ct.ramp import UPSAMPLING, Filter, filter_rows, padded_length, response
from cdm4mi.degradation.ct.resample import cubic, shift_sum
from cdm4mi.degradation.lazy_torch import Tensor, torch

# Views taken together. Neighbours run alike: the margin that the steepest of them needs is little for the others.
BLOCK = 60


def project(image: Tensor, scan: ScanGeometry) -> Tensor:
    """Line integrals: (N, rows, columns) of attenuation in 1/mm to (N, views, channels), dimensionless."""
    _expect(image, (scan.rows, scan.columns), "image")
    if scan.beam == "fan":
        # twice the views of the fan, so that the shift along them finds all that the slice holds
        parallel = fan.full_turn(project(image, scan.parallel(scan.views)))
        return fan.shift_views(parallel, fan.fan_angles(scan))[:, ::2]
    out = image.new_empty((len(image), scan.views, scan.channels))
    for views, cos, sin, (step, across), transposed in _groups(scan):
        slices = image.mT if transposed else image
        out[:, views] = _project(slices, cos, sin, step, across, scan.positions())
    return out


def backproject(rows: Tensor, scan: ScanGeometry, upsampling: int = 1) -> Tensor:
    """Sum over parallel views: (N, views, channels * upsampling) from the first s on to (N, rows, columns)."""
    _expect(rows, (scan.views, scan.channels * upsampling), "sinogram")
    out = rows.new_zeros((len(rows), scan.rows, scan.columns))
    first, pitch = float(scan.positions()[0]), scan.pitch / upsampling
    for views, cos, sin, (step, across), transposed in _groups(scan):
        shape = (scan.columns, scan.rows) if transposed else (scan.rows, scan.columns)
        part = _backproject(rows[:, views], cos, sin, step, across, shape, first, pitch)
        out += part.mT if transposed else part
    return out


def fbp(sinogram: Tensor, scan: ScanGeometry, filter: Filter = "hann") -> Tensor:
    """Filtered backprojection: (N, views, channels) line integrals to (N, rows, columns) attenuation in 1/mm."""
    _expect(sinogram, (scan.views, scan.channels), "sinogram")
    if scan.beam == "fan":
        parallel = fan.half_turn(fan.shift_views(sinogram, -fan.fan_angles(scan)))
        return fbp(parallel, scan.parallel(scan.views // 2), filter)
    filtered = filter_rows(sinogram, scan.pitch, filter)
    return backproject(filtered, scan, UPSAMPLING) * (math.pi / scan.views)


def variance_weights(mask: Tensor, scan: ScanGeometry, filter: Filter = "hann") -> Tensor:
    """What the variance of each ray adds to the mean variance of ``fbp`` over a mask: (views, channels), 1/mm^2.

    For independent rays whose variance changes little over the filter's length. A pixel's variance is then
    (pi / views)^2 sum_v k_v var_v(s), where k_v is the filter's energy less what the linear interpolation across the
    view takes off (its mean square response over all offsets, 2/3 + 1/3 cos); for its mean over the mask, s takes the
    weights of the mask's projection.
    """
    if scan.beam == "fan":
        # each parallel ray is the mean of two rays of the fan: a quarter of the variance of either
        parallel = fan.full_turn(variance_weights(mask, scan.parallel(scan.views // 2), filter)[None]) / 4
        return fan.shift_views(parallel, fan.fan_angles(scan))[0].clamp(min=0)
    length = padded_length(scan.channels)
    energy = response(length, scan.pitch, filter) ** 2
    energy[1:-1] *= 2  # the negative frequencies
    frequency = torch.fft.rfftfreq(length, scan.pitch, dtype=torch.float64)
    gain = torch.empty(scan.views, dtype=torch.float64)
    for views, cos, _, (_, across), _ in _groups(scan):
        interpolation = 2 / 3 + torch.cos(2 * math.pi * frequency * (across * cos.abs())[:, None]) / 3
        gain[views] = (energy * interpolation).sum(-1) / length
    shadow = project(mask[None].float(), scan)[0]
    shadow = shadow / shadow.sum(-1, keepdim=True)
    return shadow * (gain * (math.pi / scan.views) ** 2)[:, None].to(shadow)


def _groups(scan: ScanGeometry) -> Iterator[tuple[Tensor, Tensor, Tensor, tuple[float, float], bool]]:
    """Views whose rays run closer to the columns, then the others with rows and columns exchanged.

    Yields the views, cos and sin of the ray's normal to the axis across, (step, across) the pixel's size in mm along
    the rays' axis and across it, and whether the slice is to be transposed.
    """
    theta = scan.angles()
    cos, sin = torch.cos(theta), torch.sin(theta)
    row_mm, column_mm = scan.spacing
    steep = sin.abs() * row_mm <= cos.abs() * column_mm
    for views in steep.nonzero()[:, 0].split(BLOCK):
        yield views, cos[views], sin[views], (row_mm, column_mm), False
    for views in (~steep).nonzero()[:, 0].split(BLOCK):
        yield views, sin[views], cos[views], (column_mm, row_mm), True


def _offsets(rows: int, cos: Tensor, sin: Tensor, step: float, across: float) -> tuple[Tensor, int]:
    """(views, rows) pixels from where a ray crosses the middle row to each row, and an even bound on both sides."""
    y = torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2
    offset = (sin / cos * (step / across))[:, None] * y
    return offset, 2 * math.ceil(float(offset.abs().max()) + 1)


def _project(image: Tensor, cos: Tensor, sin: Tensor, step: float, across: float, s: Tensor) -> Tensor:
    rows, columns = image.shape[1:]
    offset, margin = _offsets(rows, cos, sin, step, across)
    # u = s / cos is where a ray crosses the middle row; every view is summed at u in steps of a pixel, then read at s
    width = columns + margin
    table = torch.nn.functional.pad(image, (margin, margin))
    summed = shift_sum(table, margin / 2 - offset, width)
    position = s / (cos[:, None] * across) + (width - 1) / 2
    return cubic(summed, position) * (step / cos.abs())[:, None].to(image)


def _backproject(
    rows: Tensor,
    cos: Tensor,
    sin: Tensor,
    step: float,
    across: float,
    shape: tuple[int, int],
    first: float,
    pitch: float,
) -> Tensor:
    offset, margin = _offsets(shape[0], cos, sin, step, across)
    width = shape[1] + margin
    u = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * across
    table = cubic(rows, (u * cos[:, None] - first) / pitch)
    return shift_sum(table, margin / 2 + offset.mT, shape[1])


def _expect(array: Tensor, shape: tuple[int, int], name: str) -> None:
    if array.ndim != 3 or tuple(array.shape[1:]) != shape:
        raise ValueError(f"{name} of shape {tuple(array.shape)}: expected (N, {shape[0]}, {shape[1]})")
