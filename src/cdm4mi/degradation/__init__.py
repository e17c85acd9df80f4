"""What makes a clean image noisy."""

from cdm4mi.degradation.base import Degradation, Frame
from cdm4mi.degradation.gaussian import GaussianNoise
from cdm4mi.degradation.noncentral_chi import second_moment_correction
from cdm4mi.degradation.registry import make_degradation

__all__ = ["Degradation", "Frame", "GaussianNoise", "make_degradation", "second_moment_correction"]
