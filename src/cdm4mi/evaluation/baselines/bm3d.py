"""BM3D by the package of its authors, which is not installed with this project: its licence forbids commercial use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines.image import checked


@dataclass(frozen=True)
class Bm3dSettings:
    """The sigma that is told over the noise's."""

    factor: float = 1.0


GRID = [Bm3dSettings(factor) for factor in (0.7, 0.85, 1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0)]


def require() -> None:
    """Raises UserError where the package is not installed."""
    try:
        import bm3d  # noqa: F401
    except ImportError:
        raise UserError(
            "the BM3D baseline needs the package bm3d, found none; install it: pip install bm3d "
            "(its licence forbids commercial use)"
        ) from None


def bm3d(y: NDArray[Any], sigma: float, settings: Bm3dSettings = Bm3dSettings()) -> NDArray[Any]:
    """Dabov et al. (2007): (rows, columns) in any units to float32. Sigma 0 returns the image.

    Raises UserError without the package.
    """
    y = checked(y, sigma)
    if sigma == 0:
        return y
    require()
    import bm3d as package

    low, width = float(y.min()), max(float(np.ptp(y)), sigma)
    out = package.bm3d((y - low) / width, sigma_psd=settings.factor * sigma / width)
    return (np.asarray(out) * width + low).astype(np.float32)
