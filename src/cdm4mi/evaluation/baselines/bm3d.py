"""BM3D by the package of its authors, which is not installed with this project: its licence forbids commercial use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.evaluation.baselines.baseline import Baseline


@dataclass(frozen=True)
class Bm3dSettings:
    """The sigma that is assumed over the noise's."""

    factor: float = 1.0


def _denoise(y: NDArray[np.float32], sigma: float, settings: Bm3dSettings) -> NDArray[Any]:
    """Dabov et al. (2007)."""
    import bm3d as package

    low, width = float(y.min()), max(float(np.ptp(y)), sigma)
    out = package.bm3d((y - low) / width, sigma_psd=settings.factor * sigma / width)
    return np.asarray(out) * width + low


GRID = [Bm3dSettings(factor) for factor in (0.7, 0.85, 1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0)]
INSTALL = "install it: pip install bm3d (its licence forbids commercial use)"
bm3d = Baseline("BM3D", _denoise, Bm3dSettings(), GRID, "bm3d", INSTALL)
