"""What a restoration kept of a scan without a clean reference: means of tissues, scale, edges, what noise is left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cdm4mi.intensity import NO_MAGNITUDES
from cdm4mi.measure.noise_level import NoiseEstimate, estimate_noise
from cdm4mi.measure.sharpness import edge_steepness
from cdm4mi.measure.tissue import LEAST, tissue_classes
from cdm4mi.trust.record import Fidelity
from cdm4mi.trust.residual import as_magnitude, moments

STANDARD_ERRORS = 4.0
"""Of a tissue's mean: noise alone moves it less far in all but one of 10 000 scans."""
STEEP = 0.5
"""Mean gradient a pixel, in noise levels, from which edges stand out of the noise."""
CONTRAST = 1.0
"""Standard deviation of the restored patient, in noise levels, from which its scale can be compared."""
FINE = 3
"""Pixels along a side of the means, what differs from which is the fine part of an image: of noise more than half."""
LEAST_TAKEN = 0.2
"""Noise levels of that part of what was taken away, under which values that were rounded count."""
LEFT_IN = 6
"""Slices, evenly spread, in which the noise that is left is measured."""


class FidelitySums:
    """What ``Fidelity`` needs of a scan whose slices come one by one, in any order.

    Tissues, edges and scale are those of the restored scan: chosen by the scan, its noise would choose with them, and
    the means of what was chosen would differ even where the restoration is perfect. So the mean of y over the pixels of
    one restored value is that value for an estimate of least squared error, and a slope other than 1 a wrong scale.
    """

    def __init__(self, slices: int, noise: NoiseEstimate, modality: str) -> None:
        self.noise, self.modality = noise, modality
        self._looked_at = np.unique(np.linspace(0, slices - 1, LEFT_IN).astype(int))
        self._left: dict[int, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        self._tissues: dict[str, NDArray[np.float64]] = {}
        """Of each: pixels, and the sum of restored - scan."""
        self._values = np.zeros(6)
        """``moments`` of the restored and the noisy values in the patient."""
        self._edges = np.zeros(3)
        self._fine = np.zeros(3)
        """In the patient: pixels, squares of the fine part of scan - restored, its products with that of restored."""

    def add(
        self,
        k: int,
        y: NDArray[Any],
        restored: NDArray[Any],
        body: NDArray[np.bool_],
        padding: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add slice k (rows, columns) in the scan's units; body: the patient."""
        sigma = np.float32(self.noise.sigma)
        expected = as_magnitude((restored / sigma).astype(np.float32)) * sigma if self.noise.magnitude else restored
        error = expected - y
        for name, where in tissue_classes(restored, self.modality, body).items():
            sums = self._tissues.setdefault(name, np.zeros(2))
            sums += np.count_nonzero(where), error[where].sum(dtype=np.float64)
        self._values += moments(expected[body], y[body])
        self._edges += edge_steepness(restored, y, body)
        fine, taken = (image[body] - uniform_filter(image, FINE)[body] for image in (restored, -error))
        self._fine += np.count_nonzero(body), np.vdot(taken, taken), np.vdot(taken, fine)
        if k in self._looked_at:
            self._left[k] = (restored.copy(), np.zeros(y.shape, bool) if padding is None else padding.copy())

    def fidelity(self) -> Fidelity:
        """The comparison of all slices."""
        noise = self.noise
        counted = {name: (n, total) for name, (n, total) in self._tissues.items() if n >= LEAST}
        # neighbours that are alike count for fewer
        alike = math.prod((1 + max(0.0, c)) / (1 - min(0.99, max(0.0, c))) for c in noise.correlations)
        images, padding = (np.stack(part) for part in zip(*self._left.values(), strict=True))
        left = estimate_noise(images, padding, self.modality not in NO_MAGNITUDES)
        steep, along, edges = self._edges
        sharp = edges > 0 and steep / edges > STEEP * noise.sigma and along > 0
        return Fidelity(
            shifts={name: float(total / n) for name, (n, total) in counted.items()},
            uncertain_shifts={
                name: STANDARD_ERRORS * noise.sigma * math.sqrt(alike / n) for name, (n, _) in counted.items()
            },
            gain=self._slope(),
            sharpness=float(steep / along) if sharp else None,
            added=self._share_added(),
            noise_left=left.sigma,
            noise_left_correlations=left.correlations,
        )

    def _share_added(self) -> float | None:
        """Minus the slope of the restored scan's fine part over that of what was taken away; None of next to nothing.

        An estimate of least squared error does not correlate with its error: 0. What was added to the scan is in the
        restored one as it is, and in scan - restored with the opposite sign: 1.
        """
        count, squares, products = self._fine
        if count < LEAST or squares <= count * (LEAST_TAKEN * self.noise.sigma) ** 2:
            return None
        return float(-products / squares)

    def _slope(self) -> float | None:
        """Slope of the scan over the restored values; None of few pixels, or where these hardly differ."""
        if self._values[0] < LEAST:
            return None
        x, y, xx, _, xy = self._values[1:] / self._values[0]
        power = xx - x * x
        if power <= (CONTRAST * self.noise.sigma) ** 2:
            return None
        return float((xy - x * y) / power)
