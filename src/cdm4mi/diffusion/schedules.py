"""Noise schedules: the betas of a discrete diffusion, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from cdm4mi.choices import ScheduleName
from cdm4mi.errors import UserError


def _line(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps, dtype=torch.float64)


def linear(timesteps: int, start: float, end: float) -> Tensor:
    """Linear in beta (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return _line(start, end, timesteps)


def sqrt_linear(timesteps: int, start: float, end: float) -> Tensor:
    """The square of a line in sqrt(beta): what latent diffusion's code calls ``linear`` and DDIM's code ``quad``."""
    return _line(math.sqrt(start), math.sqrt(end), timesteps) ** 2


def sqrt(timesteps: int, start: float, end: float) -> Tensor:
    """The square root of a line. Its last steps hold no image at all: sqrt(abar_T) is about 2e-22 at the usual ends."""
    return _line(start, end, timesteps) ** 0.5


def sigmoid(timesteps: int, start: float, end: float) -> Tensor:
    """A logistic rise from start to end over -6 .. 6."""
    return torch.sigmoid(_line(-6.0, 6.0, timesteps)) * (end - start) + start


def cosine(timesteps: int, s: float = 8e-3, max_beta: float = 0.999) -> Tensor:
    """abar_t = cos^2(((t/T + s) / (1 + s)) pi/2), betas capped (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17)."""
    u = _line(0.0, 1.0, timesteps + 1)
    abar = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - abar[1:] / abar[:-1]).clamp(max=max_beta)


def log_sigma(timesteps: int, sigma_min: float = 0.01, sigma_max: float = 3.0) -> Tensor:
    """Variance preserving, with sigma_t = sqrt((1 - abar_t) / abar_t) a geometric series from sigma_min to sigma_max.

    Made for the parameterization ``precond``: the condition holds most of the image, so the path need not end in pure
    noise, and every octave of noise gets the same share of the times.
    """
    sigma = torch.exp(_line(math.log(sigma_min), math.log(sigma_max), timesteps))
    abar = 1 / (1 + sigma**2)
    return 1 - abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])


def _check(betas: Tensor, name: str) -> None:
    bad = torch.nonzero(~((betas > 0) & (betas < 1)))
    if len(betas) == 0 or len(bad):
        found = f"{betas[bad[0, 0]].item()} at step {bad[0, 0].item()}" if len(betas) else "none"
        raise UserError(f"betas: found {found}, expected every beta inside (0, 1)")
    left = torch.cumsum(torch.log1p(-betas), 0)
    if len(betas) > 1 and float(left[-2]) < math.log(torch.finfo(torch.float64).tiny):  # no solver steps from 0 to 0
        gone = int(torch.nonzero(left < math.log(torch.finfo(torch.float64).tiny))[0])
        raise UserError(
            f"beta_schedule: found {name} of {len(betas)} timesteps, whose signal is 0 to rounding from time {gone} "
            "on, expected fewer timesteps or smaller betas"
        )


_BETWEEN_TWO_BETAS: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear,
    "sqrt_linear": sqrt_linear,
    "quadratic": sqrt_linear,  # the field has two names for the one formula
    "sqrt": sqrt,
    "sigmoid": sigmoid,
}
NAMES: tuple[str, ...] = get_args(ScheduleName)


def make_betas(
    name: str,
    timesteps: int,
    *,
    linear_start: float = 1e-4,
    linear_end: float = 2e-2,
    cosine_s: float = 8e-3,
    sigma_min: float = 0.01,
    sigma_max: float = 3.0,
    betas: Sequence[float] | None = None,
    zero_terminal_snr: bool = False,
) -> Tensor:
    """The betas of the schedule ``name``: shape (timesteps,), float64, in (0, 1) (the last is 1 at zero terminal SNR).

    betas: the user's own, for ``custom``. Raises UserError for an unknown name or betas outside (0, 1).
    """
    if name in _BETWEEN_TWO_BETAS:
        out = _BETWEEN_TWO_BETAS[name](timesteps, linear_start, linear_end)
    elif name == "cosine":
        out = cosine(timesteps, cosine_s)
    elif name == "log_sigma":
        out = log_sigma(timesteps, sigma_min, sigma_max)
    elif name == "custom":
        out = torch.tensor(list(betas or []), dtype=torch.float64)
    else:
        raise UserError(f"beta_schedule: found {name!r}, expected one of {', '.join(NAMES)}")
    _check(out, name)
    return rescale_zero_terminal_snr(out) if zero_terminal_snr else out


def rescale_zero_terminal_snr(betas: Tensor) -> Tensor:
    """Shift and scale sqrt(abar): first value kept, last value 0 (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
    root = torch.cumprod(1 - betas, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    abar = root**2
    return 1 - torch.cat([abar[:1], abar[1:] / abar[:-1]])
