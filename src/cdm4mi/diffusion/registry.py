"""The solvers by name, with what each needs: a new one is a function, a line here and its name in ``choices``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from cdm4mi.diffusion.bridges import on_residual
from cdm4mi.diffusion.dpm_solver import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from cdm4mi.diffusion.heun import heun
from cdm4mi.diffusion.paths import GaussianPath
from cdm4mi.diffusion.solvers import Solver, ddim, ddpm
from cdm4mi.diffusion.unipc import unipc
from cdm4mi.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A solver and what it needs.

    bridges: whether it takes paths with b != 0 as they are (another is run on the residual); calls: of the denoiser in
    a step, but for the last (one).
    """

    solver: Solver
    bridges: bool = False
    calls: int = 1


SOLVERS: dict[str, Entry] = {
    "ddpm": Entry(ddpm),
    "ddim": Entry(ddim, bridges=True),
    # the same functions, not twins: Euler's step on a path's own increments is DDIM's, see ``ddim``
    "euler": Entry(ddim, bridges=True),
    "euler_ancestral": Entry(partial(ddim, eta=1.0), bridges=True),
    "heun": Entry(heun, calls=2),
    "dpmpp_2m": Entry(dpmpp_2m),
    "dpmpp_2m_sde": Entry(dpmpp_2m_sde),
    "dpmpp_3m": Entry(dpmpp_3m),
    "unipc_2": Entry(partial(unipc, order=2)),
    "unipc_3": Entry(partial(unipc, order=3)),
}


def _entry(name: str) -> Entry:
    if name not in SOLVERS:
        raise UserError(f"solver: found {name!r}, expected one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def make_solver(name: str, eta: float = 0.0, path: GaussianPath | None = None) -> Solver:
    """The solver ``name``; eta in [0, 1] counts for ddim only. Raises UserError for anything else.

    path: where given, the solver is one for this path; what is not defined on it is refused too.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta: found {eta}, expected 0 to 1")
    entry = _entry(name)
    solver = partial(ddim, eta=eta) if name == "ddim" else entry.solver
    if path is None or not path.is_bridge or entry.bridges:
        return solver
    if bool((path.at(torch.arange(path.timesteps)).c == 0).any()):
        fitting = ", ".join(other for other, its in SOLVERS.items() if its.bridges)
        raise UserError(
            f"solver: found {name} on a bridge that is without noise somewhere ({type(path).__name__}), "
            f"expected {fitting}"
        )
    return on_residual(solver)


def network_calls(name: str, steps: int) -> int:
    """Denoiser calls of ``steps`` steps: as many, but 2 S - 1 for heun."""
    return _entry(name).calls * (steps - 1) + 1
