"""Solvers by name, from the table ``choices.SOLVERS``: the function for a path, and how many calls it makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from cdm4mi.choices import SOLVERS, SolverEntry
from cdm4mi.diffusion.paths import GaussianPath
from cdm4mi.diffusion.solvers.residual import on_residual
from cdm4mi.diffusion.solvers.step import Solver
from cdm4mi.errors import UserError


def make_solver(name: str, eta: float = 0.0, path: GaussianPath | None = None) -> Solver:
    """The solver ``name``; eta in [0, 1] counts for those that take it (ddim). Raises UserError for anything else.

    path: where given, the solver is one for this path; what is not defined on it is refused too.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta: found {eta}, expected 0 to 1")
    entry = _entry(name)
    function = entry.function if callable(entry.function) else _load(entry.function)
    solver: Solver = partial(function, eta=eta) if entry.takes_eta else function
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
    """Denoiser calls of ``steps`` steps: as many; 2 steps - 1 for a solver of two calls a step (heun)."""
    return _entry(name).calls * (steps - 1) + 1


def _entry(name: str) -> SolverEntry:
    if name not in SOLVERS:
        raise UserError(f"solver: found {name!r}, expected one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _load(function: str) -> Callable[..., Tensor]:
    """The function "file:name" of this folder."""
    file, _, name = function.partition(":")
    found: Callable[..., Tensor] = getattr(import_module(f"{__package__}.{file}"), name)
    return found
