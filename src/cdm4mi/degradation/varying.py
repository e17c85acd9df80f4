"""A noise level that varies smoothly over the image, as parallel imaging and surface coils make it."""

from __future__ import annotations

from cdm4mi.degradation.lazy_torch import F, Tensor, torch

KNOTS = 4
"""Random values along each side of the image that the map runs through."""


def smooth_map(shape: tuple[int, int], variation: float, generator: torch.Generator) -> Tensor:
    """(H, W) factors of the noise's standard deviation, smooth and random, of mean square 1.

    variation: half the spread, 0 to 1: the factors run over 1 - variation to 1 + variation before they are scaled.
    """
    coarse = torch.rand((1, 1, KNOTS, KNOTS), generator=generator, device=generator.device)
    field = F.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0, 0]
    unit = (field - field.amin()) / (field.amax() - field.amin()).clamp(min=1e-6)
    factors = 1.0 + variation * (2.0 * unit - 1.0)
    return factors / factors.square().mean().sqrt()
