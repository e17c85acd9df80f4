"""Classical denoisers to be measured against: an image and its noise's sigma in, an image out; tuned by search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cdm4mi.evaluation.baselines import bm3d as _bm3d
from cdm4mi.evaluation.baselines import gaussian as _gaussian
from cdm4mi.evaluation.baselines import nlm as _nlm
from cdm4mi.evaluation.baselines import tv as _tv
from cdm4mi.evaluation.baselines import wavelet as _wavelet
from cdm4mi.evaluation.baselines.bm3d import Bm3dSettings, bm3d
from cdm4mi.evaluation.baselines.gaussian import GaussianSettings, gaussian_filter
from cdm4mi.evaluation.baselines.nlm import NlmSettings, nlm
from cdm4mi.evaluation.baselines.tune import Pair, best_of
from cdm4mi.evaluation.baselines.tv import TvSettings, tv
from cdm4mi.evaluation.baselines.wavelet import WaveletSettings, wavelet


def _nothing() -> None:
    """What a baseline needs that comes with the project."""


@dataclass(frozen=True)
class Baseline:
    """A method: ``run(y, sigma, settings)`` on (rows, columns), and every setting that the search tries.

    title: in words. require: raises UserError where its package is not installed.
    """

    title: str
    run: Callable[[NDArray[Any], float, Any], NDArray[Any]]
    grid: Sequence[Any]
    require: Callable[[], None] = _nothing

    def tuned(self, pairs: Sequence[Pair]) -> Any:
        """The settings that are best on validation pairs (noisy, reference, sigma)."""
        return best_of(self.run, self.grid, pairs)


BASELINES: dict[str, Baseline] = {
    "gaussian_filter": Baseline("Gaussian filter", gaussian_filter, _gaussian.GRID),
    "nlm": Baseline("non-local means", nlm, _nlm.GRID),
    "tv": Baseline("total variation", tv, _tv.GRID),
    "wavelet": Baseline("wavelet", wavelet, _wavelet.GRID, _wavelet.require),
    "bm3d": Baseline("BM3D", bm3d, _bm3d.GRID, _bm3d.require),
}
"""By the name that a configuration uses. A new one is a file with its settings, function and grid, and a line here."""

__all__ = [
    "BASELINES",
    "Baseline",
    "Bm3dSettings",
    "GaussianSettings",
    "NlmSettings",
    "TvSettings",
    "WaveletSettings",
    "bm3d",
    "gaussian_filter",
    "nlm",
    "tv",
    "wavelet",
]
