"""Classical denoisers to be measured against: an image and its noise's sigma in, an image out; tuned by search."""

from __future__ import annotations

from typing import Any

from cdm4mi.evaluation.baselines.baseline import Baseline
from cdm4mi.evaluation.baselines.bm3d import bm3d
from cdm4mi.evaluation.baselines.gaussian import gaussian_filter
from cdm4mi.evaluation.baselines.nlm import nlm
from cdm4mi.evaluation.baselines.tv import tv
from cdm4mi.evaluation.baselines.wavelet import wavelet

BASELINES: dict[str, Baseline[Any]] = {
    "gaussian_filter": gaussian_filter,
    "nlm": nlm,
    "tv": tv,
    "wavelet": wavelet,
    "bm3d": bm3d,
}
"""By the name that a configuration uses. A new one is a file with its settings, function and grid, and a line here."""

__all__ = ["BASELINES", "Baseline", "bm3d", "gaussian_filter", "nlm", "tv", "wavelet"]
