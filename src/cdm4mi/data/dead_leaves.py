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

from cdm4mi.data.ellipses import Ellipse, Layers, draw_ellipse, log_uniform

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


def dead_leaves(images: Tensor, leaves: Layers) -> Tensor:
    """Lay leaves over images (N, C, H, W). Their values are quantiles of each image's values, linear between two."""
    chosen = images[leaves.images]
    ordered = chosen.flatten(1).sort(1).values
    last = ordered.shape[1] - 1
    position = leaves.values * last
    below = position.long().clamp(max=last)
    low, high = (ordered[leaves.owners, at] for at in (below, (below + 1).clamp(max=last)))
    laid = leaves._replace(values=torch.lerp(low, high, position - below))
    for inside, value in laid.profiles(*images.shape[-2:]):
        chosen[: len(inside)].lerp_(value, inside)
    return images.index_copy(0, leaves.images, chosen)
