"""Names that commands and configuration take alike; without imports, so that ``--help`` stays instant."""

from typing import Literal

SolverName = Literal[
    "ddpm",
    "ddim",
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "unipc_2",
    "unipc_3",
]
"""How a sample is drawn: the keys of ``diffusion.registry.SOLVERS``."""

SpacingName = Literal["linspace", "trailing", "leading", "quadratic", "logsnr", "karras"]
"""Which times of the path a solver visits: see ``diffusion.times.time_list``."""

StartName = Literal["noise", "y"]
"""Where a sample begins: at the noisy end, or in the middle of the path from the condition."""

EstimateName = Literal["mean", "sample", "mean-of-k"]
"""What is asked of a model."""

ModalityName = Literal["CT", "MR", "PT"]
"""Kinds of scan."""
