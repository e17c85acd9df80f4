"""The half log-SNR lambda = ln(a / c) of a path: the time in which higher-order solvers and one spacing work."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import GaussianPath


def half_log_snr(path: GaussianPath, t: Tensor | int) -> Tensor:
    """lambda at the times t, float64, (N, 1, 1, 1): -inf where a = 0, finite (about 700) where c = 0."""
    a, _, c = path.at(t)
    return torch.log(a / c.clamp(min=torch.finfo(torch.float64).tiny))
