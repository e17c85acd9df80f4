"""Bounds on the error that hold for a share of whole scans: split conformal prediction with one score a scan.

An interval that covers 90 % of the voxels of many scans together may cover far less of one of them, since the errors
within a scan are alike: its voxels are not exchangeable with those of another scan, but scans are with scans. With the
score q of a scan, the 90 % quantile of |error| / standard deviation over its voxels, the ceil((n + 1)(1 - alpha))-th
smallest of the scores of n scans is a half width in which at least 90 % of a new scan's voxels lie with probability
1 - alpha (Vovk et al. 2005, Algorithmic Learning in a Random World; Angelopoulos et al. 2022, arXiv 2208.02814, whose
risk is here whether too few voxels are inside). With the greatest quantile over regions as the score, that holds for
every region of the scan at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude

from cdm4mi.measure.tissue import tissue_classes
from cdm4mi.window import IntensityWindow

LEAST_VOXELS = 300
"""A scan or a region of fewer voxels has no score: its quantile says little."""
EDGE_SLOPE = 0.03
"""Slope on [-1, 1] a pixel from which a pixel is near an edge; 0.04 beside a step of 0.1."""


def scans_needed(alpha: float) -> int:
    """The least number of scans with which a bound for 1 - alpha of scans exists: 9 for alpha = 0.1."""
    return math.ceil(round((1 - alpha) / alpha, 9))


def scan_bound(scores: Sequence[float], alpha: float) -> float | None:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores; None where n is below ``scans_needed(alpha)``.

    The score of a new scan, exchangeable with the n, is at most this with probability 1 - alpha or more, and with at
    most 1 - alpha + 1 / (n + 1) where no two scores are equal.
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - alpha), 9))
    return float(sorted(scores)[rank - 1]) if rank <= len(scores) else None


def scan_score(ratios: NDArray[Any], share: float, regions: Iterable[NDArray[Any]] = ()) -> float:
    """The least half width in which at least ``share`` of a scan's voxels lie, and of the voxels of each region.

    ratios: |error| / standard deviation of all voxels of the scan, of any shape; regions: those of each region's
    voxels, left out where they are fewer than 300.
    """
    parts = [ratios, *(region for region in regions if region.size >= LEAST_VOXELS)]
    return max(float(np.quantile(part, share, method="inverted_cdf")) for part in parts)


def regions_of(x0: NDArray[Any], body: NDArray[Any], window: IntensityWindow) -> dict[str, NDArray[Any]]:
    """Masks of the regions of a true slice (rows, columns) on [-1, 1]: tissues (``measure.tissue``), edges, the rest.

    Regions overlap: a pixel belongs to a tissue and is near an edge or in a flat area. body: mask of the patient, bool;
    window: of the slice.
    """
    edges = gaussian_gradient_magnitude(np.asarray(x0, np.float64), 1.0) > EDGE_SLOPE
    tissues = tissue_classes(window.physical(x0), window.modality, body)
    return {**tissues, "near edges": edges, "flat areas": ~edges}
