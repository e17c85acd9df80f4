"""Whether a configuration is of a model that can be built and sampled, found out before any data are read."""

from __future__ import annotations

import torch

from cdm4mi.config.schema import Config
from cdm4mi.diffusion.solvers.make import make_solver
from cdm4mi.models.build import build_network, build_process, check_sizes
from cdm4mi.models.process import ConditionalProcess
from cdm4mi.networks import DiffusionWrapper


def check_model(config: Config) -> None:
    """Raise UserError for a network or a path that cannot be built, and as ``check_sampling``."""
    check_sizes(config.model)
    check_sampling(config, build_process(config.model))
    without_weights(config)


def without_weights(config: Config) -> DiffusionWrapper:
    """The network of a configuration on the device "meta", without memory. Raises UserError as ``build_network``."""
    with torch.device("meta"):
        return build_network(config.model, further_channels=config.further_channels)


def check_sampling(config: Config, process: ConditionalProcess) -> None:
    """Refuse with a UserError what the pictures of a training, and later ``denoise``, could not sample with."""
    sampling = config.sampling
    make_solver(sampling.solver, sampling.eta, process.path)
    process.times(sampling.spacing, sampling.steps, sampling.times)
