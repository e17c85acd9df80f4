"""UniPC: a multistep solver that corrects its last step with the call that the next one makes anyway."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import GaussianPath, broadcast
from cdm4mi.diffusion.solvers.step import Step, finish

Estimate = tuple[Tensor | int, Tensor]
"""A time and x0_hat there."""


def unipc(step: Step, order: int = 2) -> Tensor:
    """UniPC of Zhao et al. 2023 (arXiv 2302.04867, algorithms 5 to 8), predicting x0, with their B_2. order: 2 or 3.

    Over a step of length h in lambda = ln(a / c) the flow is x_next = (c_next / c) x_t + a_next times the integral of
    exp(tau - h) x0(tau) over tau from 0 to h. The predictor puts a polynomial through the last ``order`` estimates in
    place of x0(tau); once the estimate at the step's end is there, the corrector puts one through that too. It needs
    no call of its own, and no state: the two differ in the polynomial only, and so the correction of the step that
    led to x_t is a sum of estimates that is added to x_t. For a path with b = 0.
    """
    path, now = step.path, (step.t, step.x0)
    # where a = 0, lambda is infinite: the first step starts there, but no polynomial goes through that point
    usable = [e for e in step.history if bool((path.at(e[0]).a > 0).all())]
    x_t = step.x_t
    if step.history:
        origin, older = step.history[0], usable[1:order]
        x_t = x_t + _bend(path, origin, [*older, now], step.t) - _bend(path, origin, older, step.t)
    a_next, _, c_next = path.at(step.t_next)
    h = path.half_log_snr(step.t_next) - path.half_log_snr(step.t)
    x_next = broadcast(c_next / path.at(step.t).c, x_t) * x_t - broadcast(a_next * torch.expm1(-h), x_t) * step.x0
    return finish(step, x_next + _bend(path, now, usable[: order - 1], step.t_next))


def _bend(path: GaussianPath, origin: Estimate, others: Sequence[Estimate], t_end: Tensor | int) -> Tensor | float:
    """What a step from origin to t_end gains when x0(tau) bends to go through the other estimates.

    The sum of w_k (x0_k - x0_origin) over the others, where sum w_k r_k^n = J_n for n = 1, 2 ..., with r = tau / h at
    an estimate and J_n the integral of h exp(h (r - 1)) r^n over r from 0 to 1. For one other estimate the paper takes
    w = B_2 / 2 r, which is J_1 / r to the order that counts.
    """
    if not others:
        return 0.0
    start = path.half_log_snr(origin[0])
    h = path.half_log_snr(t_end) - start
    moment = -torch.expm1(-h)  # J_0 = B_2
    r = [torch.where(h.isinf(), 1.0, (path.half_log_snr(t) - start) / h) for t, _ in others]
    if len(others) == 1:
        weights = [moment / 2 / r[0]]
    else:
        moments = []
        for n in range(1, len(others) + 1):
            moment = 1 - n / h * moment
            moments.append(moment)
        nodes = torch.stack(r, -1)
        powers = torch.stack([nodes**n for n in range(1, len(others) + 1)], -2)
        weights = list(torch.linalg.solve(powers, torch.stack(moments, -1)).unbind(-1))
    a_end, x0 = path.at(t_end).a, origin[1]
    return sum(
        (broadcast(a_end * w, x0) * (x0_k - x0) for w, (_, x0_k) in zip(weights, others, strict=True)),
        start=torch.zeros_like(x0),
    )


unipc_2 = partial(unipc, order=2)
unipc_3 = partial(unipc, order=3)
