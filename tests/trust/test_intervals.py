"""What a report says of the model's intervals: the coverage for the scan's kind of noise, or that it is not known."""

from cdm4mi.models.about import Calibration, KindCalibration
from cdm4mi.trust.intervals import interval_coverage

KIND = KindCalibration(scale=1.2, coverage=0.893, smoothing=1.0, floor=0.1, measured_on="validation patients")
CALIBRATION = Calibration(
    settings={},
    coverage_before=0.7,
    coverage_after=0.9,
    kinds={"white noise in MR magnitudes": KIND},
)


def test_the_coverage_is_that_of_the_kind_of_noise():
    found = interval_coverage(CALIBRATION, "MR", (0.0, 0.0, 1.0))
    assert found == (
        "the model's 90 % intervals cover 89.3 % for white noise in MR magnitudes, measured on validation patients"
    )
    unknown = "the model's 90 % intervals are not calibrated for correlated noise in CT images"
    assert interval_coverage(CALIBRATION, "CT", (0.5, 0.5, 0.0)) == unknown
    assert interval_coverage(None, "CT", (0.5, 0.5, 0.0)) == unknown
