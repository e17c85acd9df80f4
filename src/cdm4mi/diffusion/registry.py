"""The solvers by name: a new one is a function on ``Step`` and one line here."""

from __future__ import annotations

from functools import partial

from cdm4mi.diffusion.dpm_solver import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from cdm4mi.diffusion.solvers import Solver, ddim, ddpm
from cdm4mi.errors import UserError

SOLVERS: dict[str, Solver] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m": dpmpp_3m,
}


def make_solver(name: str, eta: float = 0.0) -> Solver:
    """The solver ``name``; eta in [0, 1] counts for ddim only. Raises UserError for anything else."""
    if not 0 <= eta <= 1:
        raise UserError(f"eta: found {eta}, expected 0 to 1")
    if name not in SOLVERS:
        raise UserError(f"solver: found {name!r}, expected one of {', '.join(SOLVERS)}")
    return partial(ddim, eta=eta) if name == "ddim" else SOLVERS[name]
