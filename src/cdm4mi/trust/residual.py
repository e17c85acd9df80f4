"""Test of a restoration's residual, input - output: noise alone, or structure too, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi.errors import UserError
from cdm4mi.measure.magnitude import mean_of_magnitude
from cdm4mi.measure.noise_level import NoiseEstimate
from cdm4mi.trust.structure import Finding, contrast_scores, local_scores, most_striking

MOST_LEVEL = 1.1
"""Residual over noise level from which more than noise was removed: the level is estimated to some percent."""
MOST_CORRELATION = 0.2
"""How far neighbours may be more alike in the residual than in the noise: what is left of it is not like the whole."""
MOST_EDGES = 0.15
"""Correlation of the residual's magnitude with the output's edges: repeated scans give 0.13, as their noise varies."""


@dataclass(frozen=True)
class ResidualTest:
    """What the residual input - output of a scan's slices (N, rows, columns) holds beside noise.

    Of a magnitude image (MR) the output is taken as the input would be on average, as noise lifts dark tissue.

    level: its root mean square in the patient over the estimated noise level, 1 where exactly the noise was removed,
    less where some was left. bias: its mean there, in the scan's units. correlations: of the residual's pixels that are
    neighbours (next row, next column); noise_correlations: as they were estimated of the noise. edges: correlation (-1
    to 1) of the residual's magnitude with the gradient of the output. structure: float32 (N, rows, columns), standard
    scores of blobs in the residual, positive where something brighter than its surroundings was removed. contrast: of
    the same shape, standard scores of the residual's likeness to the output's own structures, positive where these lost
    contrast; both are 0 outside of the patient. findings: local maxima of both that noise does not reach in 99 of 100
    scans, the most striking first.
    """

    level: float
    bias: float
    correlations: tuple[float, float]
    noise_correlations: tuple[float, float]
    edges: float
    structure: NDArray[np.float32] = field(repr=False, compare=False)
    contrast: NDArray[np.float32] = field(repr=False, compare=False)
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
    if not (np.isfinite(y).all() and np.isfinite(restored).all()):
        raise UserError("residual: found values that are not finite, expected numbers")
    if noise.sigma <= 0:
        raise UserError(f"noise level: found {noise.sigma:g}, expected one above 0 to compare the residual with")
    y, restored = (np.asarray(a, np.float32).reshape(-1, *a.shape[-2:]) for a in (y, restored))
    patient = _patient(restored) if body is None else body.reshape(y.shape)
    patient = patient if patient.any() else np.ones(y.shape, bool)
    sigma = _sigma(noise, len(y))
    output = restored / sigma
    residual = y / sigma - (as_magnitude(output) if noise.magnitude else output)
    inside = residual[patient]
    # Air keeps a bias that noise gives a magnitude; lungs and sinuses are inside.
    within = np.stack([ndimage.binary_fill_holes(image) for image in patient])
    structure, blobs = local_scores(residual, spacing, within)
    contrast, losses = contrast_scores(residual, output, spacing, within)
    return ResidualTest(
        level=float(np.sqrt(np.square(inside, dtype=np.float64).mean())),
        bias=float(inside.mean(dtype=np.float64)) * noise.sigma,
        correlations=_correlations(residual, patient),
        noise_correlations=noise.correlations,
        edges=_edges(residual, output, patient),
        structure=structure,
        contrast=contrast,
        findings=most_striking([*blobs, *losses], spacing, np.broadcast_to(sigma, y.shape)),
    )


def _sigma(noise: NoiseEstimate, slices: int) -> NDArray[np.float32]:
    """Standard deviation of the noise, broadcast to (slices, rows, columns)."""
    by_slice = noise.of_slices(slices)[:, None, None]
    relative = np.ones((1, 1)) if noise.map is None else noise.map / noise.sigma
    return (by_slice * relative).astype(np.float32)


def as_magnitude(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the magnitude of a signal with unit noise in both its parts; the signal itself where it is strong."""
    at = np.linspace(0, 20, 401)
    lift = np.interp(np.abs(signal), at, mean_of_magnitude(at, 1) - at)
    return np.abs(signal) + lift.astype(np.float32)


def _patient(restored: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The patient in the output; of the input, noise would decide which dark pixels belong to it."""
    low = float(np.percentile(restored, 1))
    bright: NDArray[np.bool_] = restored > low + 0.5 * (float(restored.mean(dtype=np.float64)) - low)
    return bright


def _correlations(residual: NDArray[np.float32], patient: NDArray[np.bool_]) -> tuple[float, float]:
    """Of pixels in the patient whose neighbour is there too: (next row, next column)."""
    found = []
    for axis in (1, 2):
        first, second = (np.take(residual, _but(n, axis, residual), axis) for n in (-1, 0))
        both = np.logical_and(*(np.take(patient, _but(n, axis, patient), axis) for n in (-1, 0)))
        a, b = first[both].astype(np.float64), second[both].astype(np.float64)
        power = np.sqrt((a @ a) * (b @ b))
        found.append(float(a @ b / power) if power > 0 else 0.0)
    return found[0], found[1]


def _but(end: int, axis: int, array: NDArray[Any]) -> NDArray[np.intp]:
    """Indices along an axis without the last (-1), or without the first (0)."""
    indices = np.arange(array.shape[axis])
    return indices[:-1] if end else indices[1:]


def _edges(residual: NDArray[np.float32], output: NDArray[np.float32], patient: NDArray[np.bool_]) -> float:
    """Correlation of the residual's magnitude with the gradient of the output, up to its 99th percentile."""
    gradient = ndimage.gaussian_gradient_magnitude(output, (0, 1, 1))[patient]
    gradient = np.minimum(gradient, np.percentile(gradient, 99))
    magnitude = np.abs(residual[patient])
    if gradient.std() == 0 or magnitude.std() == 0:
        return 0.0
    return float(np.corrcoef(magnitude, gradient)[0, 1])
