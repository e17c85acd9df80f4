"""Keeping x0_hat in the range of images: clipping and dynamic thresholding."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import broadcast
from cdm4mi.errors import UserError


def clip_x0(x0: Tensor, clip: bool = False, dynamic: float | None = None) -> Tensor:
    """x0_hat (N, C, ...) brought to [-1, 1] before a solver sees it, so that eps is derived from what is left.

    clip: clamp. dynamic: a fraction, say 0.995; each image is clamped to that quantile q of its own |x0_hat| and
    divided by it, where q is above 1 (Imagen, Saharia et al. 2022, arXiv 2205.11487, section 2.3). It takes the place
    of clip. The division changes intensities: an image that a network overshoots is darkened, so it is not for values
    that are to be measured. Raises UserError for a fraction outside [0, 1].
    """
    if dynamic is None:
        return x0.clamp(-1, 1) if clip else x0
    if not 0 <= dynamic <= 1:
        raise UserError(f"dynamic_threshold: found {dynamic}, expected 0 to 1")
    # sorted, as torch.quantile takes 16 million values at most
    size = x0.abs().flatten(1).sort(1).values
    q = broadcast(size[:, round(dynamic * (size.shape[1] - 1))].clamp(min=1), x0)
    return torch.minimum(torch.maximum(x0, -q), q) / q
