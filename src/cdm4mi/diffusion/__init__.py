"""Gaussian diffusion paths, parameterizations, losses and solvers: torch only, usable alone in a notebook."""

from cdm4mi.choices import SOLVERS
from cdm4mi.diffusion.losses import loss_per_sample, min_snr_weight, posterior_weight
from cdm4mi.diffusion.noise import SeededNoise
from cdm4mi.diffusion.parameterizations import PARAMETERIZATIONS, Latent, Parameterization
from cdm4mi.diffusion.paths import CLEAN, DDPMPath, GaussianPath, broadcast
from cdm4mi.diffusion.sampling import SamplingState, sample
from cdm4mi.diffusion.schedules import make_betas, rescale_zero_terminal_snr
from cdm4mi.diffusion.solvers.ddim import ddim, ddpm
from cdm4mi.diffusion.solvers.make import make_solver, network_calls
from cdm4mi.diffusion.solvers.step import Step
from cdm4mi.diffusion.times import time_list

__all__ = [
    "CLEAN",
    "PARAMETERIZATIONS",
    "SOLVERS",
    "DDPMPath",
    "GaussianPath",
    "Latent",
    "Parameterization",
    "SamplingState",
    "SeededNoise",
    "Step",
    "broadcast",
    "ddim",
    "ddpm",
    "loss_per_sample",
    "make_betas",
    "make_solver",
    "min_snr_weight",
    "network_calls",
    "posterior_weight",
    "rescale_zero_terminal_snr",
    "sample",
    "time_list",
]
