"""Lists of times for sampling: which of the T times a solver visits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cdm4mi.choices import SpacingName
from cdm4mi.diffusion.paths import GaussianPath
from cdm4mi.errors import UserError

SPACINGS: tuple[str, ...] = get_args(SpacingName)
RHO = 7.0


def time_list(spacing: str, path: GaussianPath | int, steps: int, start: int | None = None) -> list[int]:
    """``steps`` strictly falling times out of 0 .. T - 1, for any 1 <= steps <= T.

    path: the path, or T alone for the spacings that look at times only. start: the noisiest time to visit, T - 1 by
    default; the list is then one of the times 0 .. start. With ends at start and 0:
    linspace: evenly. quadratic: denser where noise is low (Song et al. 2021, arXiv 2010.02502, appendix D.2).
    logsnr: evenly in ln(a / c) (Lu et al. 2022, arXiv 2211.01095). karras: evenly in (c / a)^(1 / 7) (Karras et al.
    2022, arXiv 2206.00364, eq. 5). With one end: trailing, from the noisy end down, T / S apart (arXiv 2305.08891,
    sec. 3.3); leading, multiples of T // S, which misses the noisy end. Raises UserError for what cannot be.
    """
    timesteps = path if isinstance(path, int) else path.timesteps
    if start is not None:
        if not 0 <= start < timesteps:
            raise UserError(f"start: found {start}, expected 0 to {timesteps - 1}")
        timesteps = start + 1
    if not 1 <= steps <= timesteps:
        raise UserError(f"`steps`: found {steps}, expected 1 to {timesteps} (the model's timesteps)")
    last = timesteps - 1
    even = np.linspace(0, 1, steps) if steps > 1 else np.ones(1)
    rising: NDArray[Any]
    if spacing == "linspace":
        rising = even * last
    elif spacing == "trailing":
        rising = timesteps - np.arange(steps - 1, -1, -1) * (timesteps / steps) - 1
    elif spacing == "leading":
        rising = np.arange(steps) * float(timesteps // steps)
    elif spacing == "quadratic":
        rising = (even * np.sqrt(last)) ** 2
    elif spacing in ("logsnr", "karras"):
        if isinstance(path, int):
            raise ValueError(f"spacing {spacing} needs the path, found its number of times only")
        noise = _log_noise(path, timesteps, spacing)
        if spacing == "karras":
            noise = np.exp(noise / RHO)
        rising = np.interp(noise[0] + even * (noise[-1] - noise[0]), noise, np.arange(timesteps))
    else:
        raise UserError(f"spacing: found {spacing!r}, expected one of {', '.join(SPACINGS)}")
    times = np.round(rising).astype(int)
    # rounding can make equal times where they are dense: move them up, then down from the noisy end, one apart
    order = np.arange(steps)
    times = np.maximum.accumulate(times - order) + order
    times = np.minimum(times, last - order[::-1])
    return [int(t) for t in times[::-1]]


def given_times(times: Sequence[int], path: GaussianPath) -> list[int]:
    """A user's falling times as a list. Raises UserError where the path has no such times."""
    for t in times:
        if not 0 <= t < path.timesteps:
            raise UserError(f"times: found {t}, expected 0 to {path.timesteps - 1} (the model's timesteps)")
    return list(times)


def _log_noise(path: GaussianPath, timesteps: int, spacing: str) -> NDArray[Any]:
    """ln(c / a) at the first times, rising; UserError where it is not (a bridge without noise of its own)."""
    a, _, c = path.at(torch.arange(timesteps))
    if not bool((c > 0).all()):
        raise UserError(f"spacing: found {spacing} on a path with times without noise, expected linspace or trailing")
    log = (c.log() - a.log()).numpy()
    if np.isposinf(log[-1]):  # zero terminal SNR: as far beyond its neighbour as that is beyond the one before
        log[-1] = 2 * log[-2] - log[-3] if timesteps > 2 else log[-2] + 1
    if not (np.diff(log) > 0).all():
        raise UserError(f"spacing: found {spacing} on a path whose noise does not rise, expected linspace or trailing")
    return log
