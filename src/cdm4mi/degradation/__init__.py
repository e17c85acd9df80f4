"""What makes a clean image noisy."""

from cdm4mi.degradation.base import Degradation, Frame
from cdm4mi.degradation.gaussian import GaussianNoise

__all__ = ["Degradation", "Frame", "GaussianNoise"]
