"""Total variation (Rudin et al. 1992, by Chambolle 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import restoration

from cdm4mi.evaluation.baselines.baseline import Baseline


@dataclass(frozen=True)
class TvSettings:
    """Weight of the total variation: factor * sigma."""

    factor: float = 1.0


def _denoise(y: NDArray[np.float32], sigma: float, settings: TvSettings) -> NDArray[Any]:
    scaled = (y - y.mean()) / sigma
    out: NDArray[Any] = restoration.denoise_tv_chambolle(scaled, weight=settings.factor) * sigma + y.mean()
    return out


GRID = [TvSettings(factor) for factor in (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.2)]
tv = Baseline("total variation", _denoise, TvSettings(), GRID)
