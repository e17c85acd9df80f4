"""Whether a restoration removed noise alone, and whether to trust it: tests of the residual, and a report."""

from cdm4mi.trust.during import ReportWhileRestoring
from cdm4mi.trust.record import TrustReport
from cdm4mi.trust.report import trust_report
from cdm4mi.trust.residual import ResidualTest, residual_test
from cdm4mi.trust.structure import Finding

__all__ = ["Finding", "ReportWhileRestoring", "ResidualTest", "TrustReport", "residual_test", "trust_report"]
