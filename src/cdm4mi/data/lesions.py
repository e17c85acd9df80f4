"""Ellipses of low contrast that are added to clean training patches, so that small lesions are no surprise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cdm4mi.data.ellipses import Ellipse, Layers, draw_ellipse, log_uniform

MOST = 3
"""Ellipses of one patch: 1 to so many."""
RADIUS = (1.5, 10.0)
"""Of the smaller half axis, pixels; the other is up to twice as long."""
CONTRAST = (0.01, 0.2)
"""On [-1, 1], either way: in CT 10 to 200 HU."""
SOFTNESS = (0.2, 1.0)
"""Of the edge, pixels."""
AIR = -0.95
"""Values on [-1, 1] up to here get none."""


class Lesion(NamedTuple):
    """An ellipse and its contrast on [-1, 1]."""

    ellipse: Ellipse
    contrast: float


def draw_lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    """1 to ``MOST`` ellipses; sizes and contrasts uniform in the logarithm."""
    lesions = []
    for _ in range(int(rng.integers(1, MOST + 1))):
        ellipse = draw_ellipse(rng, log_uniform(rng, *RADIUS), 2.0, SOFTNESS)
        lesions.append(Lesion(ellipse, math.copysign(log_uniform(rng, *CONTRAST), rng.random() - 0.5)))
    return tuple(lesions)


def with_lesions(images: Tensor, lesions: Layers) -> Tensor:
    """Images (N, C, H, W) on [-1, 1] with the ellipses in their tissue, clipped to that range."""
    chosen = images[lesions.images]
    tissue = chosen > AIR
    for inside, contrast in lesions.profiles(*images.shape[-2:]):
        chosen[: len(inside)] += contrast * inside * tissue[: len(inside)]
    return images.index_copy(0, lesions.images, chosen.clamp(-1.0, 1.0))
