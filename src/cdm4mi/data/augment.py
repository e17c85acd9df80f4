"""Augmentation of training patches: flips and turns of image and condition, and changes of the clean image alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.dead_leaves import Leaf, dead_leaves, draw_leaves
from cdm4mi.data.ellipses import Layers, layers_of
from cdm4mi.data.lesions import Lesion, draw_lesions, with_lesions
from cdm4mi.data.patient import Plane

Crop = tuple[slice, slice]
Turn = Callable[[Tensor], Tensor]
BACKGROUND = -1.0
KNOTS = 5
"""Points of a random curve of intensities."""


def draw_turn(config: AugmentConfig, rng: np.random.Generator) -> Turn:
    """Draw a quarter turn and a flip, as configured. Returns a function that applies them to any image.

    The random numbers taken from ``rng`` do not depend on the configuration.
    """
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    quarter, flip = (quarter if config.rotation == "quarter" else 0), flip and config.flip

    def turn(image: Tensor) -> Tensor:
        turned = torch.rot90(image, quarter, (-2, -1))
        return (turned.flip(-1) if flip else turned).contiguous()

    return turn


@dataclass(frozen=True)
class Change:
    """Changes of one clean image, made before noise is added.

    angle: degrees, anticlockwise; contrast: factor of the differences from the image's mean; sharpness: share of the
    difference from a 3 x 3 blur that is added (negative: subtracted); shrink: number of pixels along each axis that
    are averaged; curve: new values for those at equal distances from -1 to 1, linear between (None: unchanged);
    leaves: ellipses that are laid over the whole image; lesions: ellipses that are added.
    """

    angle: float = 0.0
    contrast: float = 1.0
    sharpness: float = 0.0
    shrink: int = 1
    curve: tuple[float, ...] | None = None
    leaves: tuple[Leaf, ...] = ()
    lesions: tuple[Lesion, ...] = ()

    def cut(self, plane: Plane, crop: Crop) -> NDArray[Any]:
        """The crop of a slice (or of its channels), rotated about its centre, then shrunk.

        Outside the slice is background; rows and columns that do not fill a new pixel are left out.
        """
        return _shrunk(self._turned(plane, crop), self.shrink)

    def _turned(self, plane: Plane, crop: Crop) -> NDArray[Any]:
        if self.angle == 0.0:
            return np.asarray(plane[crop] if len(plane.shape) == 2 else plane[(..., *crop)])
        if len(plane.shape) == 3:
            return np.stack([_rotated(channel, crop, self.angle, BACKGROUND) for channel in np.asarray(plane[:])])
        return _rotated(plane, crop, self.angle, BACKGROUND)

    def foreground(self, plane: Plane) -> Plane:
        """The foreground (bool) of a whole slice after this change."""
        if self.angle == 0.0 and self.shrink == 1:
            return plane
        turned = plane[:, :] if self.angle == 0.0 else _rotated(plane, np.s_[:, :], self.angle, 0.0) >= 0.5
        return np.asarray(_shrunk(np.asarray(turned), self.shrink) >= 0.5)

    def spacing(self, spacing: tuple[float, float]) -> tuple[float, float]:
        """Millimetres between neighbours along (rows, columns) of the changed slice."""
        return spacing[0] * self.shrink, spacing[1] * self.shrink


class Intensities(NamedTuple):
    """The changes of the values of N images, those that any has. curve: indices (n,) of images, and knots (n, K)."""

    curve: tuple[Tensor, Tensor] | None
    leaves: Layers | None
    lesions: Layers | None
    contrast: Tensor | None
    sharpness: Tensor | None

    @classmethod
    def of(cls, changes: Sequence[Change], levels: Sequence[Sequence[float | None]]) -> Intensities:
        """Those of the changes of N images. levels: of the noise on [-1, 1] at every lesion; None: not known."""
        bent = [n for n, change in enumerate(changes) if change.curve is not None]
        refined = any(change.contrast != 1.0 or change.sharpness != 0.0 for change in changes)
        return cls(
            (torch.tensor(bent), torch.tensor([changes[n].curve for n in bent])) if bent else None,
            layers_of([change.leaves for change in changes]),
            layers_of(
                [
                    [
                        (lesion.ellipse, contrast)
                        for lesion, level in zip(change.lesions, at, strict=True)
                        if (contrast := lesion.contrast(level)) is not None
                    ]
                    for change, at in zip(changes, levels, strict=True)
                ]
            ),
            torch.tensor([change.contrast for change in changes]) if refined else None,
            torch.tensor([change.sharpness for change in changes]) if refined else None,
        )

    def applied(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply curve, leaves, lesions, contrast, then sharpness to images (N, C, H, W) on [-1, 1].

        Returns them and where lesions are (``with_lesions``), None where no image has any.
        """
        inside = None
        if self.curve is not None:
            index, knots = self.curve
            images = images.index_copy(0, index, _bent(images[index], knots))
        if self.leaves is not None:
            images = dead_leaves(images, self.leaves)
        if self.lesions is not None:
            images, inside = with_lesions(images, self.lesions)
        if self.contrast is None or self.sharpness is None:
            return images, inside
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + self.contrast[:, None, None, None] * (images - mean)
        blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (images + self.sharpness[:, None, None, None] * (images - blurred)).clamp(-1.0, 1.0), inside


def _bent(images: Tensor, knots: Tensor) -> Tensor:
    """Images (n, C, H, W) on [-1, 1] through curves: linear between knots (n, K) at equal distances from -1 to 1."""
    last = knots.shape[1] - 1
    position = (images.flatten(1) + 1) * (last / 2)
    below = position.long().clamp(0, last - 1)
    low, high = (knots.gather(1, at) for at in (below, below + 1))
    return torch.lerp(low, high, (position - below).clamp(0, 1)).reshape(images.shape)


def draw_shrink(config: AugmentConfig, rng: np.random.Generator) -> int:
    """Draw the shrink: 2 for the configured share of patches, else 1. A share of 0 takes nothing from ``rng``."""
    return 2 if config.shrink > 0 and rng.random() < config.shrink else 1


def draw_change(
    config: AugmentConfig, rng: np.random.Generator, pixels: int, shrink: int = 1, modality: str | None = None
) -> Change:
    """Draw a change of the configured strength, of an image that has so many ``pixels`` when it is shrunk.

    Nothing is taken from ``rng`` for changes that are off.
    The curve is for MR and PET, whose units are arbitrary; the background stays and the brightest knot is 1. A third of
    them rise, a third fall from what is darkest in the patient on, as T2 weighting is to T1, a third do neither.
    """
    angle, contrast, sharpness = 0.0, 1.0, 0.0
    if config.rotation != "quarter" and config.rotation > 0:
        angle = float(rng.uniform(-config.rotation, config.rotation))
    if config.contrast > 0:
        contrast = math.exp(float(rng.uniform(-1, 1)) * math.log1p(config.contrast))
    if config.sharpness > 0:
        sharpness = float(rng.uniform(-config.sharpness, config.sharpness))
    curve = None
    if config.curve > 0 and rng.random() < config.curve and modality in ("MR", "PT"):
        values, kind = rng.random(KNOTS - 1), int(rng.integers(3))
        if kind < 2:
            values = np.sort(values)[:: 1 if kind == 0 else -1]
        curve = (BACKGROUND, *(float(v) for v in 2 * values / values.max() - 1))
    leaves = draw_leaves(rng) if config.leaves > 0 and rng.random() < config.leaves else ()
    lesions = draw_lesions(rng, pixels) if config.lesions > 0 and rng.random() < config.lesions else ()
    return Change(angle, contrast, sharpness, shrink, curve, leaves, lesions)


def _shrunk(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means over squares of ``factor`` pixels, of (..., rows, columns)."""
    if factor == 1:
        return image
    rows, columns = (n // factor for n in image.shape[-2:])
    whole = image[..., : rows * factor, : columns * factor].astype(np.float32)
    means: NDArray[Any] = whole.reshape(*image.shape[:-2], rows, factor, columns, factor).mean((-3, -1))
    return means


def _rotated(plane: Plane, crop: Crop, angle: float, outside: float) -> NDArray[Any]:
    """The crop, rotated about its centre by ``angle`` and interpolated bilinearly; reads only the pixels it needs."""
    shape = plane.shape
    (top, bottom, _), (left, right, _) = (part.indices(n) for part, n in zip(crop, shape, strict=True))
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
