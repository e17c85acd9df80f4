"""Data consistency: what the condition fixes of the clean image is set in every estimate of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def image_mean(image: Tensor, fold: int = 1) -> Tensor:
    """The mean over each channel of each image (N, C, H, W), in the image's shape.

    fold: of a network that folds blocks of fold x fold pixels into channels, and so gives each of the fold^2 pixels of
    a block an offset of its own: the mean of each sub-grid of pixels. H and W: multiples of fold.
    """
    means = F.pixel_unshuffle(image, fold).mean((2, 3), keepdim=True)
    return F.pixel_shuffle(means.expand(-1, -1, image.shape[2] // fold, image.shape[3] // fold), fold)


def with_mean_of(x0_hat: Tensor, reference: Tensor, fold: int = 1) -> Tensor:
    """x0_hat (N, C, H, W), shifted so that its ``image_mean`` is that of ``reference``, an image of the same shape.

    The mean is a linear measurement A x0, which noise of zero mean leaves known to sigma / sqrt(H W). The shift is the
    range-null space decomposition A^+ y + (I - A^+ A) x0_hat (Wang et al. 2023, arXiv 2212.00490).
    """
    return x0_hat + image_mean(reference - x0_hat, fold)
