"""Ellipses of low contrast that are added to clean training patches, so that small lesions are no surprise.

Where the noise level of a patch is known before its noise is made, contrasts are about the least that can be seen in
it: an ellipse far below that teaches nothing, and one far above is easy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cdm4mi.data.ellipses import Ellipse, Layers, draw_ellipse, log_uniform

MOST = 6
"""Ellipses in ``AREA``: 1 to so many."""
AREA = 64**2
"""Pixels. A larger image has as many more."""
RADIUS = (1.5, 10.0)
"""Of the smaller half axis, pixels; the other is up to twice as long."""
DETECTABILITY = (1.5, 15.0)
"""d' of an observer who knows the ellipse: contrast times the root of the area in pixels over the level of white noise,
or of white noise that is as strong at the frequencies of the ellipse (``spectra.blob_powers``)."""
CONTRAST = (0.003, 0.1)
"""On [-1, 1], either way: in CT 3 to 100 HU. An ellipse that needs more in its noise is left out."""
SOFTNESS = (0.2, 1.0)
"""Of the edge, pixels."""
HIDING = 0.05
"""Noise level on [-1, 1], in CT 50 HU, above which contrasts that matter are hidden, whatever a network does."""
WEIGHED = 100.0
"""Area in pixels of the ellipse that the weight of the loss is for."""
AIR = -0.95
"""Values on [-1, 1] up to here get none."""


class Lesion(NamedTuple):
    """An ellipse whose contrast follows from the noise level.

    sign: 1 or -1; detectability: d' in noise of a known level; share: 0 to 1, from the least to the most of
    ``CONTRAST``, for the contrast where the level is not known.
    """

    ellipse: Ellipse
    sign: float
    detectability: float
    share: float

    def contrast(self, sigma: float | None) -> float | None:
        """Contrast on [-1, 1] in noise of this level, None where more than ``CONTRAST`` allows would be needed.

        sigma: of white noise, or of white noise as strong as it is at the frequencies of the ellipse; None: not known.
        """
        low, high = CONTRAST
        if sigma is None:
            return float(self.sign * low * (high / low) ** self.share)
        needed = self.detectability * sigma / math.sqrt(self.ellipse.area)
        return None if needed > high else self.sign * max(needed, low)


def draw_lesions(rng: np.random.Generator, pixels: int = AREA) -> tuple[Lesion, ...]:
    """Ellipses for an image of so many pixels, 1 to ``MOST`` in ``AREA``; sizes and contrasts uniform in the
    logarithm."""
    lesions = []
    for _ in range(max(1, round(int(rng.integers(1, MOST + 1)) * pixels / AREA))):
        ellipse = draw_ellipse(rng, log_uniform(rng, *RADIUS), 2.0, SOFTNESS)
        sign = math.copysign(1.0, rng.random() - 0.5)
        lesions.append(Lesion(ellipse, sign, log_uniform(rng, *DETECTABILITY), float(rng.random())))
    return tuple(lesions)


def with_lesions(images: Tensor, lesions: Layers) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) on [-1, 1] with the ellipses in their tissue, clipped to that range, and where they are.

    The latter is (N, 1, H, W): the share of each pixel inside an ellipse, 0 to 1, times ``WEIGHED`` over the area of
    the ellipse, so that it has the same sum for an ellipse of any size; the most of it where ellipses overlap.
    """
    chosen = images[lesions.images]
    tissue = chosen > AIR
    within = chosen.new_zeros(len(chosen), 1, *images.shape[-2:])
    shares = (WEIGHED / (math.pi * lesions.ellipses[:, 2] * lesions.ellipses[:, 3])).split(lesions.counts)
    for (inside, contrast), share in zip(lesions.profiles(*images.shape[-2:]), shares, strict=True):
        count = len(inside)
        chosen[:count] += contrast * inside * tissue[:count]
        there = share[:, None, None, None] * inside * tissue[:count].any(1, keepdim=True)
        within[:count] = torch.maximum(within[:count], there)
    covered = images.new_zeros(len(images), 1, *images.shape[-2:]).index_copy(0, lesions.images, within)
    return images.index_copy(0, lesions.images, chosen.clamp(-1.0, 1.0)), covered


def loss_weights(covered: Tensor, level: Tensor, weight: float) -> Tensor:
    """Weights of the loss, (N, 1, H, W): ``weight`` inside ellipses of ``WEIGHED`` pixels and 1 outside.

    Inside others it is inversely proportional to their area: with one weight for all, large ellipses would have most
    of the loss, and a network would take small ones for noise. covered: as ``with_lesions`` returns it; level: of the
    noise on [-1, 1], (N,). Above ``HIDING`` the weight comes down to 1 with the inverse fourth power of the level:
    there it would only make a network see lesions in flat tissue.
    """
    share = (HIDING / level).pow(4).clamp(max=1)[:, None, None, None]
    return 1 + (weight - 1) * share * covered
