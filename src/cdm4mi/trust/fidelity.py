"""What a restoration kept of a scan without a clean reference: means of tissues, scale, edges, what noise is left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.measure.noise_level import NoiseEstimate, estimate_noise
from cdm4mi.measure.sharpness import relative_sharpness
from cdm4mi.measure.tissue import LEAST, tissue_bias, tissue_classes
from cdm4mi.trust.record import Fidelity
from cdm4mi.trust.residual import as_magnitude

STANDARD_ERRORS = 4.0
"""Of a tissue's mean: noise alone moves it less far in all but one of 10 000 scans."""
STEEP = 0.5
"""Mean gradient a pixel, in noise levels, from which edges stand out of the noise."""
CONTRAST = 1.0
"""Standard deviation of the restored patient, in noise levels, from which its scale can be compared."""


def fidelity(
    y: NDArray[Any],
    restored: NDArray[Any],
    noise: NoiseEstimate,
    body: NDArray[np.bool_],
    modality: str,
    padding: NDArray[np.bool_] | None = None,
) -> Fidelity:
    """Compare restored slices (N, rows, columns) with the scan y, both in the scan's units.

    Tissues, edges and scale are those of the restored scan: chosen by the scan, its noise would choose with them, and
    the means of what was chosen would differ even where the restoration is perfect. So the mean of y over the pixels of
    one restored value is that value for an estimate of least squared error, and a slope other than 1 a wrong scale.
    """
    expected = as_magnitude((restored / noise.sigma).astype(np.float32)) * noise.sigma if noise.magnitude else restored
    slices = [tissue_classes(image, modality, inside) for image, inside in zip(restored, body, strict=True)]
    classes = {name: np.stack([each[name] for each in slices]) for name in slices[0]}
    shifts = {name: value for name, value in tissue_bias(expected, y, classes).items() if math.isfinite(value)}
    # neighbours that are alike count for fewer
    alike = math.prod((1 + max(0.0, c)) / (1 - min(0.99, max(0.0, c))) for c in noise.correlations)
    errors = {name: STANDARD_ERRORS * noise.sigma * math.sqrt(alike / classes[name].sum()) for name in shifts}
    left = estimate_noise(restored, padding)
    sharpness = relative_sharpness(restored, y, body, STEEP * noise.sigma)
    return Fidelity(
        shifts=shifts,
        uncertain_shifts=errors,
        gain=_gain(y[body], expected[body], noise.sigma) if body.sum() >= LEAST else None,
        sharpness=sharpness if math.isfinite(sharpness) else None,
        noise_left=left.sigma,
        noise_left_correlations=left.correlations,
    )


def _gain(y: NDArray[Any], restored: NDArray[Any], sigma: float) -> float | None:
    """Slope of y over the restored values (n,); None where these hardly differ."""
    centred = restored.astype(np.float64) - restored.mean(dtype=np.float64)
    power = float(np.square(centred).mean())
    if power <= (CONTRAST * sigma) ** 2:
        return None
    return float((centred * y).mean() / power)
