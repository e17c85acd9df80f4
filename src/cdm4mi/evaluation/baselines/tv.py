"""Total variation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import restoration

from cdm4mi.evaluation.baselines.image import checked


@dataclass(frozen=True)
class TvSettings:
    """Weight of the total variation: factor * sigma."""

    factor: float = 1.0


GRID = [TvSettings(factor) for factor in (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.2)]


def tv(y: NDArray[Any], sigma: float, settings: TvSettings = TvSettings()) -> NDArray[np.float32]:
    """Rudin et al. (1992) by Chambolle (2004): (rows, columns) in any units to float32. Sigma 0 returns the image."""
    y = checked(y, sigma)
    if sigma == 0:
        return y
    scaled = (y - y.mean()) / sigma
    out = restoration.denoise_tv_chambolle(scaled, weight=settings.factor)
    restored: NDArray[np.float32] = (out * sigma + y.mean()).astype(np.float32)
    return restored
