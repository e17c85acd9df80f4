"""Bridges: paths that lead from the clean image to its condition y instead of pure noise (a + b = 1 at every time).

Seen from y, x_t - y = a (x0 - y) + c eps: for a network that sees y, a bridge with c > 0 is a diffusion of the residual
x0 - y whose noise is c / a. What a bridge chooses is how the times are spread over that noise, and where it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import GaussianPath, cast
from cdm4mi.diffusion.solvers import Solver, Step


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


def on_residual(solver: Solver) -> Solver:
    """A solver for b = 0 made one for bridges whose c is nowhere 0: it is run on x_t - (a + b) y and x0 - y."""

    def solve(step: Step) -> Tensor:
        if step.y is None:
            raise ValueError("a bridge needs its condition y")
        path, y = step.path, step.y
        times = torch.arange(path.timesteps)
        a, _, c = (w.flatten() for w in path.at(times))
        inner = replace(
            step,
            path=GaussianPath(a, torch.zeros_like(a), c),
            x_t=step.x_t - _share(path, step.t, y),
            x0=step.x0 - y,
            y=None,
            history=[(t, x0 - y) for t, x0 in step.history],
            denoise=None if step.denoise is None else _of_residual(step.denoise, path, y),
        )
        return solver(inner) + _share(path, step.t_next, y)

    return solve


def _share(path: GaussianPath, t: Tensor | int, y: Tensor) -> Tensor:
    """(a + b) y: what x_t is where x0 = y and there is no noise."""
    a, b, _ = path.at(t)
    return cast(a + b, y) * y


def _of_residual(
    denoise: Callable[[Tensor, Tensor | int], Tensor], path: GaussianPath, y: Tensor
) -> Callable[[Tensor, Tensor | int], Tensor]:
    return lambda x_t, t: denoise(x_t + _share(path, t, y), t) - y
