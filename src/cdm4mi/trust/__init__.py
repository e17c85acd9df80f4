"""Whether a restoration removed noise alone: tests of the difference between a scan and what was restored from it."""

from cdm4mi.trust.residual import ResidualTest, residual_test
from cdm4mi.trust.structure import Finding

__all__ = ["Finding", "ResidualTest", "residual_test"]
