"""Solvers: from x_t and x0_hat at one time to x at the next. Each is a function without state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import CLEAN, GaussianPath, cast


@dataclass(frozen=True)
class Step:
    """All that a solver sees.

    x_t, x0: (N, C, H, W), the state and the denoiser's estimate at the times t; t, t_next: (N,) or int, where t_next
    comes from the list of times (CLEAN after the last); y: the condition, for bridges; noise: draws noise like x_t;
    history: (t, x0_hat) of the steps before, the latest first, for multistep solvers.
    """

    path: GaussianPath
    x_t: Tensor
    x0: Tensor
    t: Tensor | int
    t_next: Tensor | int
    noise: Callable[[], Tensor] = field(repr=False)
    y: Tensor | None = None
    history: Sequence[tuple[Tensor | int, Tensor]] = ()


Solver = Callable[[Step], Tensor]


def finish(step: Step, x_next: Tensor) -> Tensor:
    """x0_hat itself for each sample whose next time is CLEAN."""
    last = (torch.as_tensor(step.t_next) == CLEAN).reshape(-1, 1, 1, 1).to(x_next.device)
    return torch.where(last, step.x0, x_next)


def ddpm(step: Step) -> Tensor:
    """Ancestral sampling: the posterior q(x_next | x_t, x0_hat) of Ho et al. 2020, eq. 6 and 7, at any stride.

    The stride enters by beta_eff = 1 - abar_t / abar_next; the variance is the posterior's (the smaller of the two).
    For a path with b = 0.
    """
    a, _, c = step.path.at(step.t)
    a_next, _, c_next = step.path.at(step.t_next)
    variance_step = c**2 - (a / a_next * c_next) ** 2  # beta_eff for a variance-preserving path
    mean = (
        cast(a_next * variance_step / c**2, step.x_t) * step.x0
        + cast(a / a_next * (c_next / c) ** 2, step.x_t) * step.x_t
    )
    std = c_next / c * variance_step.clamp(min=0).sqrt()
    return finish(step, mean + cast(std, step.x_t) * step.noise())


def ddim(step: Step, eta: float = 0.0) -> Tensor:
    """Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16: deterministic at eta = 0, ``ddpm`` at eta = 1.

    eps is derived from x_t and x0_hat, so a clipped x0_hat changes it too.
    """
    a, _, c = step.path.at(step.t)
    a_next, b_next, c_next = step.path.at(step.t_next)
    eps = step.path.eps(step.x_t, step.x0, step.t, step.y)
    std = eta * c_next * (1 - (a * c_next / (a_next * c)) ** 2).clamp(min=0).sqrt()
    direction = (c_next**2 - std**2).clamp(min=0).sqrt()
    x_next = cast(a_next, step.x_t) * step.x0 + cast(direction, step.x_t) * eps
    if step.y is not None:
        x_next = x_next + cast(b_next, step.x_t) * step.y
    if eta > 0:
        x_next = x_next + cast(std, step.x_t) * step.noise()
    return finish(step, x_next)
