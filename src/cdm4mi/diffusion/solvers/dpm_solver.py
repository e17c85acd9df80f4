"""DPM-Solver++: multistep solvers of higher order in the half log-SNR, from the estimates of earlier steps.

With lambda = ln(a / c), h the step in lambda and D the estimate x0_hat extrapolated over the step from its last values,
x_next = (c_next / c) x_t - a_next (exp(-h) - 1) D (Lu et al. 2022, arXiv 2211.01095). For paths with b = 0. The first
steps, which have no history, are of lower order; the step to the clean end returns x0_hat.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import broadcast
from cdm4mi.diffusion.solvers.step import Step, finish


def _interval(step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """a_next, c, c_next, lambda at the step's start, and its length h in lambda."""
    a_next, _, c_next = step.path.at(step.t_next)
    now = step.path.half_log_snr(step.t)
    return a_next, step.path.at(step.t).c, c_next, now, step.path.half_log_snr(step.t_next) - now


def dpmpp_2m(step: Step) -> Tensor:
    """Second order, deterministic (algorithm 2): D = (1 + 1 / 2r) x0_hat - (1 / 2r) x0_hat_before, r = h_before / h."""
    a_next, c, c_next, now, h = _interval(step)
    estimate = step.x0
    if step.history:
        t_before, x0_before = step.history[0]
        r = (now - step.path.half_log_snr(t_before)) / h
        estimate = step.x0 + broadcast(1 / (2 * r), step.x0) * (step.x0 - x0_before)
    x_next = broadcast(c_next / c, step.x_t) * step.x_t - broadcast(a_next * torch.expm1(-h), step.x_t) * estimate
    return finish(step, x_next)


def dpmpp_2m_sde(step: Step) -> Tensor:
    """Second order of the reverse SDE, midpoint form (appendix D): like ``ddpm`` it draws noise at every step."""
    a_next, c, c_next, now, h = _interval(step)
    gain = -torch.expm1(-2 * h)
    x_next = broadcast(c_next / c * torch.exp(-h), step.x_t) * step.x_t + broadcast(a_next * gain, step.x_t) * step.x0
    if step.history:
        t_before, x0_before = step.history[0]
        r = (now - step.path.half_log_snr(t_before)) / h
        x_next = x_next + broadcast(a_next * gain / (2 * r), step.x_t) * (step.x0 - x0_before)
    return finish(step, x_next + broadcast(c_next * gain.sqrt(), step.x_t) * step.noise())


def dpmpp_3m(step: Step) -> Tensor:
    """Third order, deterministic: the first two derivatives of x0_hat in lambda from divided differences.

    The second derivative is twice the divided difference. Public implementations leave the 2 out, and then the order
    that the oracle shows is 2 (``tests/diffusion/test_orders.py``).
    """
    if len(step.history) < 2:
        return dpmpp_2m(step)
    a_next, c, c_next, now, h = _interval(step)
    (t1, x0_1), (t2, x0_2), *_ = step.history
    before = step.path.half_log_snr(t1)
    r0, r1 = (now - before) / h, (before - step.path.half_log_snr(t2)) / h
    slope_0 = broadcast(1 / r0, step.x0) * (step.x0 - x0_1)
    slope_1 = broadcast(1 / r1, step.x0) * (x0_1 - x0_2)
    first = slope_0 + broadcast(r0 / (r0 + r1), step.x0) * (slope_0 - slope_1)
    second = broadcast(2 / (r0 + r1), step.x0) * (slope_0 - slope_1)
    decay = torch.expm1(-h)
    x_next = (
        broadcast(c_next / c, step.x_t) * step.x_t
        - broadcast(a_next * decay, step.x_t) * step.x0
        + broadcast(a_next * (decay / h + 1), step.x_t) * first
        - broadcast(a_next * ((decay + h) / h**2 - 0.5), step.x_t) * second
    )
    return finish(step, x_next)
