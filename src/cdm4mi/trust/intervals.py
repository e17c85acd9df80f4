"""What the calibration of a model has shown of its intervals for the noise of a scan."""

from __future__ import annotations

from collections.abc import Sequence

from cdm4mi.inference.calibration import noise_kind
from cdm4mi.models.about import Calibration


def interval_coverage(calibration: Calibration | None, modality: str | None, texture: Sequence[float]) -> str:
    """One sentence: the share that the model's 90 % intervals cover for noise of this kind, or that it is not known.

    texture: of the scan's noise (``measure.noise_level``).
    """
    kind = noise_kind(modality, texture)
    if calibration is None or kind not in calibration.kinds:
        return f"the model's 90 % intervals are not calibrated for {kind}"
    found = calibration.kinds[kind]
    return f"the model's 90 % intervals cover {100 * found.coverage:.1f} % for {kind}, measured on {found.measured_on}"
