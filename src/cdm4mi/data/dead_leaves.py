"""Dead leaves: training patches made of ellipses that hide each other, for edges, flat regions and shapes of any kind.

After the model of Matheron (1968) and Lee, Mumford and Huang (Int. J. Comput. Vision 41, 2001): its statistics over
scales are those of natural images, and a denoiser trained on nothing else comes near one trained on photographs
(Achddou, Gousseau and Ladjal, Comput. Vision Image Underst. 2023). Unlike a scan it is free of noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cdm4mi.data.ellipses import Ellipse, draw_ellipse, log_uniform

LEAVES = (1.0, 80.0)
"""Ellipses of one patch, uniform in the logarithm: from one disc on a flat ground to a patch that is full of them."""
RADIUS = (2.0, 64.0)
"""Of the smaller half axis, pixels; its density falls as its third power. The other is up to 4 times as long."""
SOFTNESS = (0.15, 0.8)
"""Of the edges, pixels."""


class Leaf(NamedTuple):
    """An ellipse and its value, as a quantile (0 to 1) of the image's values."""

    ellipse: Ellipse
    quantile: float


def draw_leaves(rng: np.random.Generator) -> tuple[Leaf, ...]:
    """Draw the ellipses in the order in which they are laid; the first covers the image."""
    leaves = [Leaf(Ellipse(0.5, 0.5, (1e6, 1e6), 0.0, SOFTNESS[0]), float(rng.random()))]
    small, large = (r**-2 for r in RADIUS)
    for _ in range(round(log_uniform(rng, *LEAVES))):
        radius = float((small - rng.random() * (small - large)) ** -0.5)
        leaves.append(Leaf(draw_ellipse(rng, radius, 4.0, SOFTNESS), float(rng.random())))
    return tuple(leaves)


def dead_leaves(image: Tensor, leaves: tuple[Leaf, ...]) -> Tensor:
    """Lay the leaves over an image (..., H, W). Their values are quantiles of that image's own values."""
    values = torch.quantile(image.float().flatten(), torch.tensor([leaf.quantile for leaf in leaves]))
    for leaf, value in zip(leaves, values, strict=True):
        image = torch.lerp(image, value.to(image.dtype), leaf.ellipse.profile(*image.shape[-2:]).to(image.dtype))
    return image
