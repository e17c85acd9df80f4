"""Ellipses of low contrast that are added to clean training patches, so that small lesions are no surprise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MOST = 3
"""Ellipses of one patch: 1 to so many."""
RADIUS = (1.5, 10.0)
"""Of the smaller half axis, pixels; the other is up to twice as long."""
CONTRAST = (0.01, 0.2)
"""On [-1, 1], either way: in CT 10 to 200 HU."""
SOFTNESS = (0.2, 1.0)
"""Pixels over which the edge rises, as a scale of a logistic curve."""
AIR = -0.95
"""Values on [-1, 1] up to here get none."""


class Lesion(NamedTuple):
    """One ellipse. row, column: of its centre, as shares of the image's sides; radii along its axes and softness in
    pixels; angle in radians; contrast on [-1, 1]."""

    row: float
    column: float
    radii: tuple[float, float]
    angle: float
    contrast: float
    softness: float

    def profile(self, rows: int, columns: int) -> Tensor:
        """The share of the contrast that each pixel gets, (rows, columns)."""
        y = torch.arange(rows, dtype=torch.float32)[:, None] + 0.5 - self.row * rows
        x = torch.arange(columns, dtype=torch.float32) + 0.5 - self.column * columns
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        along, across = cosine * x + sine * y, cosine * y - sine * x
        distance = torch.sqrt((along / self.radii[0]) ** 2 + (across / self.radii[1]) ** 2)
        return torch.sigmoid((1 - distance) * min(self.radii) / self.softness)


def draw_lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    """1 to ``MOST`` ellipses; sizes and contrasts uniform in the logarithm."""

    def log_uniform(low: float, high: float) -> float:
        return float(low * (high / low) ** rng.random())

    lesions = []
    for _ in range(int(rng.integers(1, MOST + 1))):
        radius = log_uniform(*RADIUS)
        lesions.append(
            Lesion(
                float(rng.random()),
                float(rng.random()),
                (radius * log_uniform(1.0, 2.0), radius),
                float(rng.uniform(0, math.pi)),
                math.copysign(log_uniform(*CONTRAST), rng.random() - 0.5),
                log_uniform(*SOFTNESS),
            )
        )
    return tuple(lesions)


def with_lesions(image: Tensor, lesions: tuple[Lesion, ...]) -> Tensor:
    """An image (..., H, W) on [-1, 1] with the ellipses in its tissue, clipped to that range."""
    tissue = image > AIR
    for lesion in lesions:
        image = image + lesion.contrast * lesion.profile(*image.shape[-2:]) * tissue
    return image.clamp(-1.0, 1.0)
