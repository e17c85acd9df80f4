"""What makes a clean image noisy."""

from cdm4mi.degradation.base import Degradation, Frame
from cdm4mi.degradation.noises.gaussian import GaussianNoise
from cdm4mi.degradation.noises.noncentral_chi import second_moment_correction
from cdm4mi.degradation.registry import NoiseConfig

__all__ = ["Degradation", "Frame", "GaussianNoise", "NoiseConfig", "second_moment_correction"]
