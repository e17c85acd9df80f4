"""The lesion test: what a restoration keeps of small faint lesions, and how well they are seen before and after it."""

from cdm4mi.lesions.record import LesionTest
from cdm4mi.lesions.run import lesion_test

__all__ = ["LesionTest", "lesion_test"]
