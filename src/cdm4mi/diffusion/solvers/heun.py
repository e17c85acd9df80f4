"""Heun's method: two denoiser calls a step, second order, deterministic."""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import CLEAN, broadcast
from cdm4mi.diffusion.solvers.ddim import ddim
from cdm4mi.diffusion.solvers.step import Step, finish, is_last


def heun(step: Step) -> Tensor:
    """Predict with DDIM, call the denoiser there, and let x0_hat and eps change in a line from one end to the other.

    That is algorithm 1 of Karras et al. 2022 (arXiv 2206.00364), which takes eps = dx / d sigma for a line in sigma =
    c / a, with the angle phi = atan(sigma) in place of sigma: with x0_hat and eps in a line in phi, the integral of
    dx = x0_hat d cos phi + eps d sin phi adds (1 - cos delta) / (delta sin phi_next) (x0_next - x0_hat) to DDIM's
    step, where delta is the fall of phi. A line in sigma needs a list of times of its own: over a first step from
    sigma = 20000 (cosine schedule) it diverges, and from a = 0 it does not exist. An x0_hat that does not change gives
    DDIM's step, which is then exact. For a path with b = 0. S steps are 2 S - 1 calls: the last has no second one.
    """
    if bool(is_last(step).all()):
        return step.x0
    assert step.denoise is not None
    # a sample that is at its end goes through the second call with the others, and finish sets it right
    t_next = torch.as_tensor(step.t_next).clamp(min=CLEAN + 1)
    a, _, c = step.path.at(step.t)
    a_next, _, c_next = step.path.at(t_next)
    predicted = ddim(step)
    change = step.denoise(predicted, t_next) - step.x0
    # the difference of the two angles, written so that it is not 0 where both are a right one to rounding
    delta = torch.atan2(c * a_next - a * c_next, a * a_next + c * c_next)
    weight = (a_next**2 + c_next**2) / c_next * 2 * torch.sin(delta / 2) ** 2 / delta
    return finish(step, predicted + broadcast(weight, change) * change)
