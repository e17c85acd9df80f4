"""A noise level that varies smoothly over the image, as parallel imaging and surface coils make it."""

from __future__ import annotations

from cdm4mi.degradation.base import RandomNumbers, per_image
from cdm4mi.degradation.lazy_torch import F, Tensor

KNOTS = 4
"""Random values along each side of the image that the map runs through."""
STREAM = 256
"""Of random numbers, which the map's come from."""


def smooth_maps(images: Tensor, variation: Tensor, random: RandomNumbers, stream: int = STREAM) -> Tensor:
    """Factors of the noise's standard deviation in images (n, ..., H, W): smooth and random, of mean square 1.

    variation: (n,), half the spread, 0 to 1: the factors run over 1 - variation to 1 + variation before they are
    scaled; stream: of the random numbers. Returns (n, ..., H, W) with an axis of 1 for every one between.
    """
    rows, columns = images.shape[-2:]
    coarse = random.uniform(1, KNOTS, KNOTS, stream=stream)
    field = F.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=True)
    least, most = field.amin((1, 2, 3), keepdim=True), field.amax((1, 2, 3), keepdim=True)
    unit = (field - least) / (most - least).clamp(min=1e-6)
    factors = 1.0 + per_image(variation, field) * (2.0 * unit - 1.0)
    factors = factors / factors.square().mean((1, 2, 3), keepdim=True).sqrt()
    return factors.reshape(-1, *(1 for _ in images.shape[1:-2]), rows, columns)
