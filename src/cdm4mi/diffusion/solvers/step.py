"""The contract of a solver: what one step sees, and what its last step returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cdm4mi.diffusion.paths import CLEAN, GaussianPath, broadcast

HISTORY = 3
"""How many estimates of earlier steps a multistep solver may look at."""


@dataclass(frozen=True)
class Step:
    """All that a solver sees.

    x_t, x0: (N, C, ...), the state and the denoiser's estimate at the times t; t, t_next: (N,) or int, where t_next
    comes from the list of times (CLEAN after the last); y: the condition, for bridges; noise: draws noise like x_t;
    history: (t, x0_hat) of the steps before, the latest first, for multistep solvers; denoise: x0_hat of another
    point, one more denoiser call each, for solvers that need several a step.
    """

    path: GaussianPath
    x_t: Tensor
    x0: Tensor
    t: Tensor | int
    t_next: Tensor | int
    noise: Callable[[], Tensor] = field(repr=False)
    y: Tensor | None = None
    history: Sequence[tuple[Tensor | int, Tensor]] = ()
    denoise: Callable[[Tensor, Tensor | int], Tensor] | None = field(default=None, repr=False)


Solver = Callable[[Step], Tensor]
"""From x_t and x0_hat at one time to x at the next: a function without state."""


def is_last(step: Step) -> Tensor:
    """Which samples go to CLEAN: bool, (N,), or (1,) where all share their times."""
    return (torch.as_tensor(step.t_next) == CLEAN).reshape(-1)


def finish(step: Step, x_next: Tensor) -> Tensor:
    """x_next, but x0_hat itself for each sample whose next time is CLEAN."""
    return torch.where(broadcast(is_last(step), x_next), step.x0, x_next)
