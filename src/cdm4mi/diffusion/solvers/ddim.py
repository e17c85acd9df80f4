"""DDPM and DDIM: one call a step, no history; Euler's method on a path's own increments is DDIM's."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import broadcast
from cdm4mi.diffusion.solvers.step import Step, finish


def ddpm(step: Step) -> Tensor:
    """Ancestral sampling: the posterior q(x_next | x_t, x0_hat) of Ho et al. 2020, eq. 6 and 7, at any stride.

    The stride enters by beta_eff = 1 - abar_t / abar_next; the variance is the posterior's (the smaller of the two).
    For a path with b = 0.
    """
    a, _, c = step.path.at(step.t)
    a_next, _, c_next = step.path.at(step.t_next)
    variance_step = c**2 - (a / a_next * c_next) ** 2  # beta_eff for a variance-preserving path
    mean = (
        broadcast(a_next * variance_step / c**2, step.x_t) * step.x0
        + broadcast(a / a_next * (c_next / c) ** 2, step.x_t) * step.x_t
    )
    std = c_next / c * variance_step.clamp(min=0).sqrt()
    return finish(step, mean + broadcast(std, step.x_t) * step.noise())


def ddim(step: Step, eta: float = 0.0) -> Tensor:
    """Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16, for every path: deterministic at eta = 0, ``ddpm`` at 1.

    What x_t holds beside a x0_hat + b y is c eps, so a clipped x0_hat changes eps too; of it a part goes on and the
    rest is drawn anew. At eta = 0 this is Euler's step on dx = x0_hat da + y db + eps dc, of which the step takes the
    path's own increments; for b = 0 that is Euler's on x / a over c / a (EDM, k-diffusion), at eta = 1 their
    ``ancestral``. On a Brownian bridge eta = 1 is the exact posterior of I2SB (Liu et al. 2023, arXiv 2302.05872,
    eq. 4). Where a bridge has c = 0, what is beside a x0_hat + b y is taken for an error of y and shrinks with b
    (InDI, Delbracio and Milanfar 2023, arXiv 2303.11435, eq. 9).
    """
    a, b, c = step.path.at(step.t)
    a_next, b_next, c_next = step.path.at(step.t_next)
    noisy = c > 0
    kept = torch.where(noisy, a * c_next / (a_next * c), 0.0)  # share of eps that the posterior keeps
    std = eta * c_next * (1 - kept**2).clamp(min=0).sqrt()
    carried = torch.where(noisy, (c_next**2 - std**2).clamp(min=0).sqrt() / c, torch.where(b > 0, b_next / b, 0.0))
    # x_next = a_next x0 + b_next y + carried (x_t - a x0 - b y), collected by image
    x_next = broadcast(a_next - carried * a, step.x_t) * step.x0 + broadcast(carried, step.x_t) * step.x_t
    if step.y is not None:
        x_next = x_next + broadcast(b_next - carried * b, step.x_t) * step.y
    if eta > 0:
        x_next = x_next + broadcast(std, step.x_t) * step.noise()
    return finish(step, x_next)


def euler_ancestral(step: Step) -> Tensor:
    """DDIM at eta = 1, which for b = 0 is the ancestral step of EDM and k-diffusion."""
    return ddim(step, eta=1.0)
