"""Lists of times for sampling: which of the T times a solver visits."""

from __future__ import annotations

import numpy as np

from cdm4mi.errors import UserError

SPACINGS = ("linspace", "trailing", "leading", "quadratic")


def time_list(spacing: str, timesteps: int, steps: int) -> list[int]:
    """``steps`` strictly falling times out of 0 .. timesteps - 1, for any 1 <= steps <= timesteps.

    linspace: both ends and evenly between. trailing: from the noisy end down, T / S apart (arXiv 2305.08891, sec. 3.3).
    leading: multiples of T // S, which misses the noisy end. quadratic: both ends, denser where noise is low
    (Song et al. 2021, arXiv 2010.02502, appendix D.2). All but leading start at T - 1.
    """
    if not 1 <= steps <= timesteps:
        raise UserError(f"steps: found {steps}, expected 1 to {timesteps} (the model's timesteps)")
    if spacing == "linspace":
        rising = np.linspace(0, timesteps - 1, steps) if steps > 1 else np.array([timesteps - 1.0])
    elif spacing == "trailing":
        rising = timesteps - np.arange(steps - 1, -1, -1) * (timesteps / steps) - 1
    elif spacing == "leading":
        rising = np.arange(steps) * float(timesteps // steps)
    elif spacing == "quadratic":
        rising = np.linspace(0, np.sqrt(timesteps - 1), steps) ** 2 if steps > 1 else np.array([timesteps - 1.0])
    else:
        raise UserError(f"spacing: found {spacing!r}, expected one of {', '.join(SPACINGS)}")
    times = np.round(rising).astype(int)
    # rounding can make equal times where they are dense: move them up, then down from the noisy end, one apart
    order = np.arange(steps)
    times = np.maximum.accumulate(times - order) + order
    times = np.minimum(times, timesteps - 1 - order[::-1])
    return [int(t) for t in times[::-1]]
