"""What makes a clean image noisy."""

from cdm4mi.degradation.gaussian import GaussianNoise

__all__ = ["GaussianNoise"]
