"""X-ray projection of CT slices and filtered backprojection, in torch."""

from cdm4mi.degradation.ct.geometry import ScanGeometry
from cdm4mi.degradation.ct.projector import backproject, fbp, project, variance_weights

__all__ = ["ScanGeometry", "backproject", "fbp", "project", "variance_weights"]
