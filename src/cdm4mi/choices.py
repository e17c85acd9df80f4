"""Names that commands and configuration take alike, and the table of solvers; without torch: ``--help`` is instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

SHIPPED = "shipped"
"""In the place of a model's file: the model that comes with the package."""
BEST_OF_RUN = ("checkpoints/best.ckpt", "best.ckpt")
"""Where a run's folder, or that of its checkpoints, has the model that it stands for."""


@dataclass(frozen=True)
class SolverEntry:
    """A solver and what it needs.

    function: the solver (``diffusion.solvers.step.Solver``), or "file:name" in ``diffusion/solvers/``, loaded at its
    first use; title: in tables and pictures; calls: denoiser calls in a step, of which the last step has one;
    bridges: whether it handles paths with b > 0 itself (other solvers are run on the residual to y there); takes_eta:
    whether the function has a parameter ``eta``, the share of new noise; study: the spacing with which
    ``cdm4mi steps`` tries it, None: it is not tried.
    """

    function: str | Callable[..., Any]
    title: str
    calls: int = 1
    bridges: bool = False
    takes_eta: bool = False
    study: str | None = None


SOLVERS: dict[str, SolverEntry] = {
    "ddpm": SolverEntry("ddim:ddpm", "DDPM"),
    "ddim": SolverEntry("ddim:ddim", "DDIM", bridges=True, takes_eta=True, study="trailing"),
    # the same function, no twin: Euler's step on a path's own increments is DDIM's, see ``ddim``
    "euler": SolverEntry("ddim:ddim", "Euler", bridges=True),
    "euler_ancestral": SolverEntry("ddim:euler_ancestral", "Euler ancestral", bridges=True),
    "heun": SolverEntry("heun:heun", "Heun", calls=2, study="logsnr"),
    "dpmpp_2m": SolverEntry("dpm_solver:dpmpp_2m", "DPM-Solver++ 2M", study="logsnr"),
    "dpmpp_2m_sde": SolverEntry("dpm_solver:dpmpp_2m_sde", "DPM-Solver++ 2M SDE", study="logsnr"),
    "dpmpp_3m": SolverEntry("dpm_solver:dpmpp_3m", "DPM-Solver++ 3M"),
    "unipc_2": SolverEntry("unipc:unipc_2", "UniPC-2", study="logsnr"),
    "unipc_3": SolverEntry("unipc:unipc_3", "UniPC-3"),
}
"""The solvers by name. An entry that a program adds is available in configurations, commands and studies."""

if TYPE_CHECKING:
    SolverName: TypeAlias = str
else:

    def __getattr__(name: str) -> Any:
        """``SolverName``, the type of a command's option: the names that the table has when it is asked for."""
        if name != "SolverName":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return Literal[tuple(SOLVERS)]


SpacingName = Literal["linspace", "trailing", "leading", "quadratic", "logsnr", "karras"]
"""Which times of the path a solver visits: see ``diffusion.times.time_list``."""

ScheduleName = Literal["linear", "sqrt_linear", "cosine", "sqrt", "quadratic", "sigmoid", "log_sigma", "custom"]
"""The betas of a diffusion: see ``diffusion.schedules``."""

ParameterizationName = Literal["eps", "x0", "v", "precond"]
"""What a network predicts: see ``diffusion.parameterizations``."""

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
LossName = Literal["l1", "l2", "huber", "log_l2"]
"""The loss of a pixel: see ``diffusion.losses``."""

StartName = Literal["noise", "y"]
"""Where a sample begins: at the noisy end, or in the middle of the path from the condition."""

EstimateName = Literal["mean", "sample", "mean-of-k"]
"""What is asked of a model."""

ModalityName = Literal["CT", "MR", "PT"]
"""Kinds of scan."""
