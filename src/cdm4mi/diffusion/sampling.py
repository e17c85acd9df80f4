"""The sampling loop: a list of times, a denoiser and a solver make an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cdm4mi.diffusion.clipping import clip_x0
from cdm4mi.diffusion.paths import CLEAN, GaussianPath
from cdm4mi.diffusion.solvers.step import HISTORY, Solver, Step

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x0_hat = denoise(x_t, t), with x_t (N, C, ...) and t (N,) int64: the one contract that solvers rest on."""


@dataclass(frozen=True)
class SamplingState:
    """What a hook receives at every step: i-th step, time t, the latent x_t and the estimate x0_hat made from it."""

    i: int
    t: int
    x_t: Tensor
    x0_hat: Tensor


@torch.no_grad()
def sample(
    denoise: Denoiser,
    path: GaussianPath,
    times: Sequence[int],
    solver: Solver,
    x_start: Tensor,
    *,
    noise: Callable[[int], Tensor],
    y: Tensor | None = None,
    clip: bool = False,
    dynamic_threshold: float | None = None,
    hook: Callable[[SamplingState], None] | None = None,
) -> Tensor:
    """Run the solver down the times and return the last x0_hat, (N, C, ...).

    One denoiser call a time, and those that the solver makes itself (``solvers.make.network_calls``). times: strictly
    falling, from ``times.time_list``; x_start: x at times[0]; noise(i): unit noise of step i (0 is taken to be the
    start's own draw, so steps ask for i + 1); clip, dynamic_threshold: bring each x0_hat to [-1, 1] before the solver
    sees it, so that eps is derived anew (``clip_x0``); hook: called with every SamplingState.
    """

    def estimate(x_t: Tensor, t: Tensor | int) -> Tensor:
        t = torch.as_tensor(t, device=x_t.device).reshape(-1).expand(len(x_t))
        return clip_x0(denoise(x_t, t), clip, dynamic_threshold)

    x = x_start
    history: list[tuple[int, Tensor]] = []
    for i, t in enumerate(times):
        t_next = times[i + 1] if i + 1 < len(times) else CLEAN
        if t_next >= t:
            raise ValueError(f"times must fall strictly, found {t} then {t_next}")
        x0 = estimate(x, t)
        if hook is not None:
            hook(SamplingState(i, t, x, x0))
        x = solver(Step(path, x, x0, t, t_next, partial(noise, i + 1), y, history, estimate))
        history = [(t, x0), *history[: HISTORY - 1]]
    return x
