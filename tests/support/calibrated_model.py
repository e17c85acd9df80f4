"""A model with a calibration that nobody fitted."""

from dataclasses import replace

from cdm4mi.inference.calibration import settings_of
from cdm4mi.models.about import Calibration, KindCalibration

KIND = "white noise in CT images"


def with_calibration(model, sampling, bootstrap_power=0.0, **given):
    """The model with scale 1 for ``KIND`` and these settings; given: what else the calibration has."""
    kind = KindCalibration(scale=1.0, coverage=0.9, smoothing=1.0, floor=0.1, bootstrap_power=bootstrap_power)
    calibration = Calibration(
        settings=settings_of(sampling),
        coverage_before=0.8,
        coverage_after=0.9,
        kinds={KIND: kind},
        **given,
    )
    return replace(model, about=model.about.model_copy(update={"calibration": calibration}))
