"""SDEdit: sampling that begins in the middle of a path, from the noisy input itself (arXiv 2108.01073)."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import GaussianPath, broadcast, per_sample
from cdm4mi.errors import UserError

FACTOR = 3.0
"""How far above the input's noise sampling starts by default.

The denoiser takes the noise of x_t for independent of the noise of y; of the variance at the start, y's own noise is a
share of 1 / FACTOR^2, and by that share the mean of many samples is worse than the posterior mean.
"""


def start_time(path: GaussianPath, sigma: float) -> int:
    """The first time whose noise c / a is at least ``sigma``, on [-1, 1] as the image; T - 1 where none is."""
    a, _, c = path.at(torch.arange(path.timesteps))
    enough = torch.nonzero(c >= sigma * a)
    return int(enough[0]) if len(enough) else path.timesteps - 1


def start_from(path: GaussianPath, y: Tensor, sigma: Tensor, t: int, noise: Tensor) -> Tensor:
    """x at time t from an input y = x0 + noise of standard deviation sigma: a y, and the noise that it lacks.

    y: (N, C, ...); sigma: (N,); noise: unit noise like y. The noise of y counts towards c, so x_t holds a x0 and
    noise of standard deviation c (more where y alone is noisier). As SDEdit (Meng et al. 2022, arXiv 2108.01073,
    algorithm 1), which adds all of c. For a path with b = 0: UserError else.
    """
    a, b, c = path.at(t)
    if bool((b != 0).any()):
        raise UserError(
            f"start_from: found y on {type(path).__name__}, expected noise (a bridge starts from y already)"
        )
    lacking = (c**2 - (a * per_sample(sigma, a)) ** 2).clamp(min=0).sqrt()
    return broadcast(a, y) * y + broadcast(lacking, y) * noise
