"""An ellipse with a soft edge: the shape of lesions and of dead leaves in training patches."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Ellipse(NamedTuple):
    """row, column: of its centre, as shares of the image's sides; radii: half axes in pixels; angle of the first axis
    in radians; softness: pixels over which the edge rises, as the scale of a logistic curve."""

    row: float
    column: float
    radii: tuple[float, float]
    angle: float
    softness: float

    def profile(self, rows: int, columns: int) -> Tensor:
        """The share of the ellipse in each pixel, 0 to 1, (rows, columns)."""
        y = torch.arange(rows, dtype=torch.float32)[:, None] + 0.5 - self.row * rows
        x = torch.arange(columns, dtype=torch.float32) + 0.5 - self.column * columns
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        along, across = cosine * x + sine * y, cosine * y - sine * x
        distance = torch.sqrt((along / self.radii[0]) ** 2 + (across / self.radii[1]) ** 2)
        return torch.sigmoid((1 - distance) * min(self.radii) / self.softness)


def draw_ellipse(rng: np.random.Generator, radius: float, longest: float, softness: tuple[float, float]) -> Ellipse:
    """Draw an ellipse whose smaller half axis is ``radius`` pixels, anywhere in the image and in any direction.

    The other half axis is up to ``longest`` times as long, and the softness within its range, both uniform in the
    logarithm.
    """
    long = radius * log_uniform(rng, 1.0, longest)
    return Ellipse(
        float(rng.random()),
        float(rng.random()),
        (long, radius),
        float(rng.uniform(0, math.pi)),
        log_uniform(rng, *softness),
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number from low to high, uniform in its logarithm."""
    return float(low * (high / low) ** rng.random())
