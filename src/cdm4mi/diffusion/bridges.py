"""Bridges: paths that lead from the clean image to its condition y instead of pure noise (a + b = 1 at every time).

Seen from y, x_t - y = a (x0 - y) + c eps: for a network that sees y, a bridge with c > 0 is a diffusion of the residual
x0 - y whose noise is c / a. What a bridge chooses is how the times are spread over that noise, and where it starts.
"""

from __future__ import annotations

import torch

from cdm4mi.diffusion.paths import GaussianPath


class FlowBridge(GaussianPath):
    """x_t = (1 - u) x0 + u (y + sigma_s eps) at u = 1/T, 2/T .. 1: a straight line from x0 to a noisy y.

    Flow matching with source noise sigma_s (PMRF, arXiv 2410.00418, alg. 1, where y is a regression's mean); at
    sigma_s = 0 direct iteration (InDI, arXiv 2303.11435, eq. 7), whose network must not see y: x_t and y together
    give x0 away.
    """

    def __init__(self, timesteps: int, sigma_s: float) -> None:
        u = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
        super().__init__(1 - u, u, sigma_s * u)
        self.sigma_s = sigma_s


class SchroedingerBridge(GaussianPath):
    """The Brownian bridge of I2SB (Liu et al. 2023, arXiv 2302.05872, eq. 11): from x0 to y itself, noisiest between.

    With s2 the running sum of the betas (which rise and fall again) and S their total: b = s2 / S, a = 1 - b,
    c^2 = S a b. variance: S, on [-1, 1]. At the last time x is y without noise.
    """

    def __init__(self, timesteps: int, variance: float) -> None:
        half = torch.linspace(1.0, 3.0**0.5, (timesteps + 1) // 2, dtype=torch.float64) ** 2  # betas grow threefold
        betas = torch.cat([half, half.flip(0)[timesteps % 2 :]])
        b = torch.cumsum(betas, 0) / betas.sum()
        b[-1] = 1.0
        super().__init__(1 - b, b, (variance * b * (1 - b)).sqrt())
        self.variance = variance
