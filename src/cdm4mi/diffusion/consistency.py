"""Data consistency: what the condition fixes of the clean image is set in every estimate of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def image_mean(image: Tensor, fold: int = 1) -> Tensor:
    """The mean over each channel of each image (N, C, H, W) or volume (N, C, D, H, W), in its shape.

    fold: of a network of images that folds blocks of fold x fold pixels into channels, and so gives each of the fold^2
    pixels of a block an offset of its own: the mean of each sub-grid of pixels. H and W: multiples of fold.
    """
    grids = image if fold == 1 else F.pixel_unshuffle(image, fold)
    means = grids.mean(tuple(range(2, grids.ndim)), keepdim=True).expand_as(grids)
    return means if fold == 1 else F.pixel_shuffle(means, fold)


def with_mean_of(x0_hat: Tensor, reference: Tensor, fold: int = 1) -> Tensor:
    """x0_hat (N, C, ...), shifted so that its ``image_mean`` is that of ``reference``, an image of the same shape.

    The mean is a linear measurement A x0, which noise of zero mean leaves known to sigma / sqrt(H W). The shift is the
    range-null space decomposition A^+ y + (I - A^+ A) x0_hat (Wang et al. 2023, arXiv 2212.00490).
    """
    return x0_hat + image_mean(reference - x0_hat, fold)
