"""A denoiser that sees mirror images too, and gives the mean of what it makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cdm4mi.diffusion.sampling import Denoiser
from cdm4mi.models.condition import Condition

MIRRORED = (), (-2, -1), (-1,), (-2,)
"""Dimensions along which an image is mirrored, orientation by orientation: first turned by 180 degrees."""


def averaged(denoiser: Callable[[Condition], Denoiser], count: int) -> Callable[[Condition], Denoiser]:
    """A denoiser's mean over the first ``count`` of ``MIRRORED``, as a denoiser: geometric self-ensemble.

    Images are mirrored with their condition, and the estimates mirrored back: as texture and level of the noise say the
    same of a mirror image, a network without errors of its own would give the same for each. From Lim et al. 2017,
    arXiv 1707.02921, section 3.3, who also transpose; here the texture tells rows from columns.
    """
    if count == 1:
        return denoiser

    def of(cond: Condition) -> Denoiser:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            total = torch.zeros_like(x_t)
            for axes in MIRRORED[:count]:
                total += denoiser(cond.mirrored(axes))(x_t.flip(axes), t).flip(axes)
            return total / count

        return denoise

    return of
