"""An ellipse with a soft edge: the shape of lesions and of dead leaves in training patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TOGETHER = 2**24
"""Pixels of ellipses that are computed at a time."""


class Ellipse(NamedTuple):
    """row, column: of its centre, as shares of the image's sides; radii: half axes in pixels; angle of the first axis
    in radians; softness: pixels over which the edge rises, as the scale of a logistic curve."""

    row: float
    column: float
    radii: tuple[float, float]
    angle: float
    softness: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return math.pi * math.prod(self.radii)


class Layers(NamedTuple):
    """Ellipses of n of the images of a batch, each with a value, in the order in which an image takes them.

    images: (n,), their numbers in the batch, those with the most ellipses first. counts: how many of them have a first
    ellipse, a second, and so on. ellipses: (E, 6), row, column, both radii, angle and softness: the first ellipse of
    every image in the order of ``images``, then the second of those that have one. values: (E,), likewise; owners:
    (E,), which of ``images`` each is of.
    """

    images: Tensor
    counts: list[int]
    ellipses: Tensor
    values: Tensor
    owners: Tensor

    def profiles(self, rows: int, columns: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For the first ellipses, the second ones and so on: the share of each pixel that is inside, 0 to 1,
        (count, 1, rows, columns), and the values, (count, 1, 1, 1)."""
        values = self.values[:, None, None, None].split(self.counts)
        groups: list[list[int]] = [[]]
        for count in self.counts:
            if groups[-1] and (sum(groups[-1]) + count) * rows * columns > TOGETHER:
                groups.append([])
            groups[-1].append(count)
        insides = (
            inside
            for group, ellipses in zip(groups, self.ellipses.split([sum(group) for group in groups]), strict=True)
            for inside in profile(ellipses, rows, columns)[:, None].split(group)
        )
        yield from zip(insides, values, strict=True)


def profile(ellipses: Tensor, rows: int, columns: int) -> Tensor:
    """The share of each pixel that is inside an ellipse, 0 to 1, (E, rows, columns), of ``Layers.ellipses``."""
    row, column, first, second, angle, softness = ellipses[..., None, None].unbind(1)
    y = torch.arange(rows, device=ellipses.device)[:, None] + 0.5 - row * rows
    x = torch.arange(columns, device=ellipses.device) + 0.5 - column * columns
    along, across = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    distance = torch.sqrt((along / first) ** 2 + (across / second) ** 2)
    return torch.sigmoid((1 - distance) * torch.minimum(first, second) / softness)


def layers_of(images: Sequence[Sequence[tuple[Ellipse, float]]]) -> Layers | None:
    """The ellipses, each with its value, of several images; images without any are left out. None: there is none."""
    index = sorted((n for n in range(len(images)) if images[n]), key=lambda n: -len(images[n]))
    if not index:
        return None
    layers = [[images[n][k] for n in index if len(images[n]) > k] for k in range(len(images[index[0]]))]
    taken = [one for layer in layers for one in layer]
    ellipses = torch.tensor([(e.row, e.column, *e.radii, e.angle, e.softness) for e, _ in taken])
    counts = [len(layer) for layer in layers]
    owners = torch.cat([torch.arange(count) for count in counts])
    return Layers(torch.tensor(index), counts, ellipses, torch.tensor([value for _, value in taken]), owners)


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
