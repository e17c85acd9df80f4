"""Augmentation of training patches: flips and turns of image and condition, and changes of the clean image alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.patient import Plane

Place = tuple[slice, slice]
Turn = Callable[[Tensor], Tensor]
BACKGROUND = -1.0


def draw_turn(config: AugmentConfig, rng: np.random.Generator) -> Turn:
    """A random quarter turn and flip, as far as they are wanted, the same for every image it is called with.

    The random numbers that are taken from ``rng`` do not depend on the configuration.
    """
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    quarter, flip = (quarter if config.rotation == "quarter" else 0), flip and config.flip

    def turn(image: Tensor) -> Tensor:
        turned = torch.rot90(image, quarter, (-2, -1))
        return (turned.flip(-1) if flip else turned).contiguous()

    return turn


@dataclass(frozen=True)
class Change:
    """What is done to one clean image before its noise is made.

    angle: degrees, anticlockwise; contrast: factor of the differences to the image's mean; sharpness: share of what
    a 3 x 3 blur takes away that is added (below 0: taken away).
    """

    angle: float = 0.0
    contrast: float = 1.0
    sharpness: float = 0.0

    def cut(self, plane: Plane, place: Place) -> NDArray[Any]:
        """The part of a slice (or of its channels) at a place, turned about its middle; outside is background."""
        if self.angle == 0.0:
            return np.asarray(plane[place] if len(plane.shape) == 2 else plane[(..., *place)])
        if len(plane.shape) == 3:
            return np.stack([_rotated(channel, place, self.angle, BACKGROUND) for channel in np.asarray(plane[:])])
        return _rotated(plane, place, self.angle, BACKGROUND)

    def foreground(self, plane: Plane) -> Plane:
        """The foreground (bool) of a whole slice that was turned so."""
        return plane if self.angle == 0.0 else _rotated(plane, np.s_[:, :], self.angle, 0.0) >= 0.5

    def intensity(self, image: Tensor) -> Tensor:
        """Contrast, then sharpness, of an image (..., H, W) on [-1, 1], clipped to it, as far as they are set."""
        if self.contrast == 1.0 and self.sharpness == 0.0:
            return image
        mean = image.mean()
        image = mean + self.contrast * (image - mean)
        if self.sharpness != 0.0:
            padded = F.pad(image.reshape(1, -1, *image.shape[-2:]), (1, 1, 1, 1), mode="replicate")
            image = image + self.sharpness * (image - F.avg_pool2d(padded, 3, stride=1).reshape(image.shape))
        return image.clamp(-1.0, 1.0)


def draw_change(config: AugmentConfig, rng: np.random.Generator) -> Change:
    """A change of the configured strength. Nothing is taken from ``rng`` for what is not set."""
    angle, contrast, sharpness = 0.0, 1.0, 0.0
    if config.rotation != "quarter" and config.rotation > 0:
        angle = float(rng.uniform(-config.rotation, config.rotation))
    if config.contrast > 0:
        contrast = math.exp(float(rng.uniform(-1, 1)) * math.log1p(config.contrast))
    if config.sharpness > 0:
        sharpness = float(rng.uniform(-config.sharpness, config.sharpness))
    return Change(angle, contrast, sharpness)


def _rotated(plane: Plane, place: Place, angle: float, outside: float) -> NDArray[Any]:
    """Bilinear values on the pixels of ``place`` turned about its middle, from the part of the slice that they need."""
    shape = plane.shape
    (top, bottom, _), (left, right, _) = (part.indices(n) for part, n in zip(place, shape, strict=True))
    rows = torch.arange(bottom - top, dtype=torch.float64) - (bottom - top - 1) / 2
    columns = torch.arange(right - left, dtype=torch.float64) - (right - left - 1) / 2
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # rows point down: an anticlockwise turn of the image reads each pixel from where a clockwise one takes it
    row = cosine * rows[:, None] + sine * columns[None, :] + (top + bottom - 1) / 2
    column = -sine * rows[:, None] + cosine * columns[None, :] + (left + right - 1) / 2
    first = [max(0, math.floor(float(c.min()))) for c in (row, column)]
    last = [min(n - 1, math.ceil(float(c.max()))) for c, n in zip((row, column), shape, strict=True)]
    part = np.asarray(plane[first[0] : last[0] + 1, first[1] : last[1] + 1]).astype(np.float32) - outside
    source = F.pad(torch.from_numpy(part), (1, 1, 1, 1))  # one pixel of what lies outside, which is 0 here
    grid = torch.stack(
        [
            2 * (column - first[1] + 1) / (source.shape[1] - 1) - 1,
            2 * (row - first[0] + 1) / (source.shape[0] - 1) - 1,
        ],
        dim=-1,
    )
    turned = F.grid_sample(source[None, None], grid[None].float(), padding_mode="zeros", align_corners=True)
    return turned[0, 0].numpy() + np.float32(outside)
