"""The record of a trust report: what was found in a scan and in what was restored from it. No patient data."""

from __future__ import annotations

from typing import Literal

from cdm4mi.io import OutputRecord
from cdm4mi.records import Record

Colour = Literal["good", "caution", "bad"]
"""good: nothing speaks against the restoration; caution: look at it; bad: do not use it."""
NOTICE = "NOT FOR CLINICAL USE"


class Reason(Record):
    """One sentence for a verdict, and its weight."""

    colour: Colour
    text: str


class FoundNoise(Record):
    """Noise that was measured in the scan.

    sigma: standard deviation in the scan's units; least, most: over its slices, where these differ. correlations: of
    neighbouring pixels (next row, next column). magnitude: MR magnitude. varying: over the slice.
    """

    sigma: float
    least: float | None = None
    most: float | None = None
    correlations: tuple[float, float]
    magnitude: bool
    varying: bool


class Trained(Record):
    """A quantity of the scan's noise and its range in the model's training, both in the same unit.

    found: of the slice that lies furthest from the range. away: how far outside it lies, 0 inside.
    """

    found: float
    low: float
    high: float
    away: float


class ModelRange(Record):
    """Whether the scan is one that the model knows.

    modality: whether any noise of its training is for this modality. units: whether the header of the scan says how its
    numbers become the units of training (HU of CT). sigma in the scan's units; correlation: of neighbours, the mean of
    both axes; None where it depends on the images of training.
    """

    name: str
    weight_hash: str
    modality: bool
    units: bool = True
    sigma: Trained | None = None
    correlation: Trained | None = None

    @property
    def covers(self) -> bool:
        """Whether modality, units, level and correlation are those of training."""
        return self.modality and self.units and not any(part and part.away for part in (self.sigma, self.correlation))


class Origin(Record):
    """What the record beside the restored scan says of how it was made.

    same_scan: whether its input is the scan that was given; None where it holds no hash (de-identified). sigma: the
    noise level that was given or measured, in the scan's units. strength: of the restoration, 0 to 1.
    """

    same_scan: bool | None
    model: str
    weight_hash: str
    sigma: float
    strength: float


class Residual(Record):
    """The residual test (``ResidualTest``): structure and contrast are the greatest magnitudes of their scores."""

    level: float
    bias: float
    correlations: tuple[float, float]
    noise_correlations: tuple[float, float]
    edges: float
    structure: float
    contrast: float


class Place(Record):
    """A place where the residual shows structure (``Finding``), the slice counted over the scan from 0.

    position: (slice, row, column); position_mm: RAS. change: for "structure" in the scan's units, positive where
    something bright was removed; for "contrast" the share of the contrast that is missing. change_in_sigma: the
    contrast over the noise level; change_scaled: on [-1, 1] by the scan's intensity window; None for a share.
    """

    kind: str
    position: tuple[int, int, int]
    position_mm: tuple[float, float, float]
    score: float
    change: float
    change_in_sigma: float | None
    change_scaled: float | None
    size_mm: float


class Fidelity(Record):
    """What the restored scan kept (``trust.fidelity``); None where it cannot be measured.

    shifts: mean of restored - scan by tissue, in the scan's units; of a magnitude against what the noise makes of the
    restored scan. uncertain_shifts: four standard errors of each. gain: slope of the scan over the restored scan.
    sharpness: of its edges over the scan's. added: share of what they differ by that was added to the scan, 0 where all
    was taken away. noise_left: standard deviation of what is left of the noise or looks like it, in the scan's units;
    its correlations.
    """

    shifts: dict[str, float]
    uncertain_shifts: dict[str, float]
    gain: float | None
    sharpness: float | None
    added: float | None
    noise_left: float
    noise_left_correlations: tuple[float, float]


class TrustReport(OutputRecord):
    """What was taken away from a scan, and whether to trust it. ``input``: the scan; unit: of its values.

    lesions: what the model's lesion test says at this noise level, where it holds one; intervals: what its calibration
    says for this kind of noise.
    """

    notice: str = NOTICE
    verdict: Colour
    reasons: list[Reason]
    modality: str
    unit: str
    noise: FoundNoise
    model: ModelRange | None = None
    lesions: str | None = None
    intervals: str | None = None
    origin: Origin | None = None
    residual: Residual
    findings: list[Place]
    fidelity: Fidelity

    @property
    def refused(self) -> bool:
        """Whether the restoration is bad, or of a scan that is none of the model's."""
        return self.verdict == "bad" or (self.model is not None and not self.model.covers)
