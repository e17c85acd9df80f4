"""A conditional diffusion model as one thing: network, path and parameterization built from a configuration."""

from cdm4mi.models.build import build_network, build_process, check_sizes
from cdm4mi.models.process import ConditionalProcess

__all__ = ["ConditionalProcess", "build_network", "build_process", "check_sizes"]
