"""Solvers for b = 0 on a bridge: there they are run on the residual to the condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import GaussianPath, broadcast
from cdm4mi.diffusion.solvers.step import Solver, Step


def on_residual(solver: Solver) -> Solver:
    """A solver for b = 0 made one for bridges whose c is nowhere 0: it is run on x_t - (a + b) y and x0 - y."""

    def solve(step: Step) -> Tensor:
        if step.y is None:
            raise ValueError("a bridge needs its condition y")
        path, y = step.path, step.y
        times = torch.arange(path.timesteps)
        a, _, c = path.at(times)
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
    return broadcast(a + b, y) * y


def _of_residual(
    denoise: Callable[[Tensor, Tensor | int], Tensor], path: GaussianPath, y: Tensor
) -> Callable[[Tensor, Tensor | int], Tensor]:
    return lambda x_t, t: denoise(x_t + _share(path, t, y), t) - y
