"""Test of a restoration's residual, input - output: noise alone, or structure too, and where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError
from cdm4mi.measure.magnitude import mean_of_magnitude
from cdm4mi.measure.noise_level import NoiseEstimate
from cdm4mi.trust.structure import Finding, StructureSums

MOST_LEVEL = 1.1
"""Residual over noise level from which more than noise was removed: the level is estimated to some percent."""
MOST_CORRELATION = 0.2
"""How far neighbours may be more alike in the residual than in the noise: what is left of it is not like the whole."""
MOST_EDGES = 0.25
"""Correlation of the residual's magnitude with the output's edges: repeated scans give 0.13, as their noise varies, and
networks 0.2 at low noise, as their error is largest at edges; a visible blur or another scale gives 0.5 and more."""
STEEPEST = 99.0
"""Percentile of a slice's gradients up to which they count: a few sharp edges are not all of a slice."""


@dataclass(frozen=True)
class ResidualTest:
    """What the residual input - output of a scan's slices (N, rows, columns) holds beside noise.

    Of a magnitude image (MR) the output is taken as the input would be on average, as noise lifts dark tissue.

    level: its root mean square in the patient over the estimated noise level, 1 where exactly the noise was removed,
    less where some was left. bias: its mean there, in the scan's units. correlations: of the residual's pixels that are
    neighbours (next row, next column); noise_correlations: as they were estimated of the noise. edges: correlation (-1
    to 1) of the residual's magnitude with the gradient of the output. structure: the greatest magnitude of the standard
    scores of blobs in the residual. contrast: the same of the residual's likeness to the output's own structures.
    scores: how many there are of both. findings: local maxima of both that noise does not reach in 99 of 100 scans, the
    most striking first; scores are positive where something brighter than its surroundings was removed, or structures
    of the output lost contrast.
    """

    level: float
    bias: float
    correlations: tuple[float, float]
    noise_correlations: tuple[float, float]
    edges: float
    structure: float
    contrast: float
    scores: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing but noise is seen in the residual. That does not prove that nothing else was removed."""
        return not self.reasons()

    def reasons(self) -> list[str]:
        """One sentence for each way in which the residual is not noise; [] where it passed."""
        found = []
        if self.level > MOST_LEVEL:
            found.append(f"the residual has {self.level:.2f} times the noise level, expected at most {MOST_LEVEL:g}")
        found += self.unlike_noise()
        if self.findings:
            worst = self.findings[0]
            where = ", ".join(map(str, worst.position))
            found.append(f"{len(self.findings)} place(s) with structure, the clearest at (slice, row, column) {where}")
        return found

    def unlike_noise(self) -> list[str]:
        """One sentence for each way in which the whole of the residual, not a place in it, has another texture."""
        found = []
        pairs = zip(("row", "column"), self.correlations, self.noise_correlations, strict=True)
        for axis, measured, expected in pairs:
            if measured > expected + MOST_CORRELATION:
                found.append(
                    f"neighbours along the next {axis} correlate by {measured:.2f}, the noise by {expected:.2f}"
                )
        if self.edges > MOST_EDGES:
            found.append(f"the residual is larger at edges of the output (correlation {self.edges:.2f})")
        return found


def residual_test(
    y: NDArray[Any],
    restored: NDArray[Any],
    noise: NoiseEstimate,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    body: NDArray[np.bool_] | None = None,
) -> ResidualTest:
    """Compare the residual y - restored with the noise that was estimated of y.

    Level, correlations and edges are measured in the patient, structure and contrast also in what it encloses (lungs).
    What was erased has a positive score where it was bright, what was invented a negative one. What is as large as the
    noise lets structures be, or has its spectrum, is not seen.

    Args:
        y: the input, (rows, columns) or (slices, rows, columns), in the scan's units.
        restored: the output, of the same shape and units.
        noise: of y, by ``measure.noise_level.estimate_noise``.
        spacing: millimetres between slices, rows and columns.
        body: which pixels are the patient's; by default those of the output above half its mean,
            counted from its least value.

    Raises:
        UserError: for arrays of different shapes, with values that are not finite, or noise of level 0.
    """
    if y.shape != restored.shape or y.ndim not in (2, 3):
        raise UserError(f"restored: has shape {restored.shape}, expected {y.shape} of (slices, rows, columns)")
    y, restored = (a.reshape(-1, *a.shape[-2:]) for a in (y, restored))
    patient = restored > patient_threshold(restored) if body is None else body.reshape(y.shape)
    patient = patient if patient.any() else np.ones(y.shape, bool)
    sums = ResidualSums((len(y), *y.shape[1:]), noise, spacing)
    for k in range(len(y)):
        sums.add(k, y[k], restored[k], patient[k])
    return sums.test()


def patient_threshold(images: NDArray[Any]) -> float:
    """The value from which a pixel of images without noise is the patient's, for any zero of the scale.

    Half of the mean, counted from the least value, which is the first percentile.
    """
    low = float(np.percentile(images, 1))
    return low + 0.5 * (float(images.mean(dtype=np.float64)) - low)


class ResidualSums:
    """What ``residual_test`` needs of a scan whose slices come one by one, in any order."""

    def __init__(self, shape: tuple[int, int, int], noise: NoiseEstimate, spacing: tuple[float, float, float]) -> None:
        """shape: slices, rows and columns of the scan. Raises UserError for noise of level 0."""
        if noise.sigma <= 0:
            raise UserError(f"noise level: found {noise.sigma:g}, expected one above 0 to compare the residual with")
        self.noise, self.structure = noise, StructureSums(shape, spacing)
        self._by_slice = noise.of_slices(shape[0])
        self._relative = np.float32(1) if noise.map is None else (noise.map / noise.sigma).astype(np.float32)
        self._pixels = 0
        self._inside = np.zeros(2)
        """Sum and sum of squares."""
        self._neighbours = np.zeros((2, 3))
        """By axis, the sums of a b, a^2 and b^2 of neighbours a and b."""
        self._edges = np.zeros(6)
        """``moments`` of the residual's magnitude and the output's gradient."""

    def add(self, k: int, y: NDArray[Any], restored: NDArray[Any], patient: NDArray[np.bool_]) -> None:
        """Add slice k (rows, columns), in the scan's units. Raises UserError for values that are not finite."""
        if not (np.isfinite(y).all() and np.isfinite(restored).all()):
            raise UserError("residual: found values that are not finite, expected numbers")
        sigma = self._sigma(k)
        output = restored.astype(np.float32) / sigma
        residual = y.astype(np.float32) / sigma - (as_magnitude(output) if self.noise.magnitude else output)
        inside = residual[patient]
        self._pixels += inside.size
        self._inside += inside.sum(dtype=np.float64), np.vdot(inside, inside)
        for axis, sums in enumerate(self._neighbours):
            first, second = (slice(None, -1), slice(1, None))
            one, other = ((first, second), (np.s_[:, :-1], np.s_[:, 1:]))[axis]
            both = patient[one] & patient[other]
            a, b = residual[one][both], residual[other][both]
            sums += np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)
        smooth = ndimage.gaussian_filter(output, 1.0, mode="nearest")
        if inside.size:
            gradient = np.hypot(*np.gradient(smooth))[patient]
            gradient = np.minimum(gradient, np.percentile(gradient, STEEPEST))
            self._edges += moments(np.abs(inside), gradient)
        # Air keeps a bias that noise gives a magnitude; lungs and sinuses are inside.
        self.structure.add(k, residual, output, smooth, filled(patient))

    def test(self) -> ResidualTest:
        """The test of all slices."""
        found = self.structure.found()
        count = max(1, self._pixels)
        rows, columns = (float(ab / np.sqrt(a * b)) if a * b > 0 else 0.0 for ab, a, b in self._neighbours)
        n, a, b, aa, bb, ab = self._edges
        spread = (n * aa - a * a) * (n * bb - b * b)
        return ResidualTest(
            level=float(np.sqrt(self._inside[1] / count)),
            bias=float(self._inside[0] / count) * self.noise.sigma,
            correlations=(rows, columns),
            noise_correlations=self.noise.correlations,
            edges=float((n * ab - a * b) / np.sqrt(spread)) if spread > 0 else 0.0,
            structure=found.structure,
            contrast=found.contrast,
            scores=found.scores,
            findings=[
                replace(f, change=f.change * self.sigma_at(f.position)) if f.kind == "structure" else f
                for f in found.findings
            ],
        )

    def sigma_at(self, position: tuple[int, int, int]) -> float:
        """Standard deviation of the noise at (slice, row, column), in the scan's units."""
        sigma = self._sigma(position[0])
        return float(sigma[position[1:]] if sigma.ndim else sigma)

    def _sigma(self, k: int) -> NDArray[np.float32]:
        """In slice k: (rows, columns) where it varies over the slice, else a number."""
        return np.asarray(np.float32(self._by_slice[k]) * self._relative)


def moments(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The sums of 1, a, b, a^2, b^2 and a b."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array([len(a), a.sum(), b.sum(), np.vdot(a, a), np.vdot(b, b), np.vdot(a, b)])


def filled(patient: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The patient with what it encloses: everything but the areas that reach a border of the slice."""
    areas, _ = ndimage.label(~patient)
    border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    outside = np.zeros(int(areas.max()) + 1, bool)
    outside[border] = True
    outside[0] = False
    enclosed: NDArray[np.bool_] = ~outside[areas]
    return enclosed


def as_magnitude(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the magnitude of a signal with unit noise in both its parts; the signal itself where it is strong."""
    at = np.linspace(0, 20, 401)
    lift = np.interp(np.abs(signal), at, mean_of_magnitude(at, 1) - at)
    return np.abs(signal) + lift.astype(np.float32)
