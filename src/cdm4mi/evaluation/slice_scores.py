"""Every metric of one slice, by the names that protocols use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Scores, mean_scores
from cdm4mi.evaluation.ruler import Ruler
from cdm4mi.measure.fidelity import LEAST_SIDE, vif
from cdm4mi.measure.lpips import LEAST_SIDE as LPIPS_SIDE
from cdm4mi.measure.lpips import Lpips, read_lpips
from cdm4mi.measure.metrics import SsimDefinition, bias, mae, psnr, rmse, ssim_map, ssim_mean
from cdm4mi.measure.spectrum import regions_inside, spectrum_error
from cdm4mi.measure.ssim_foreign import ssim_zero_padded
from cdm4mi.measure.tissue import LEAST, cnr, tissue_bias, tissue_classes

WHOLE, BODY = "image", "body"
PATCH = 32
"""Side of the regions whose spectra are averaged inside a body."""
NONE = float("nan")
Mask = NDArray[Any] | None
Images = tuple[NDArray[Any], NDArray[Any]]


@dataclass
class SlicePair:
    """A slice and its reference (rows, columns) in physical units; what metrics share is made once.

    Of a colour image (rows, columns, channels): errors are over all channels, every other metric is the mean of the
    channels'. body: where the patient is, bool (rows, columns).
    """

    x: NDArray[Any]
    ref: NDArray[Any]
    body: NDArray[Any]
    ruler: Ruler

    def scores(self) -> dict[str, Scores]:
        """By region; a slice without a body has none there. nan stands for what a slice cannot have.

        Raises:
            UserError: pixels that are not finite (a window would clip infinities out of sight), or a slice too small.
        """
        for name, image in (("image", self.x), ("reference", self.ref)):
            if bad := image.size - int(np.count_nonzero(np.isfinite(image))):
                raise UserError(f"{name} has {bad} pixels that are not finite, expected none")
        found: dict[str, Scores] = {}
        for region in self.ruler.protocol.regions:
            if region == WHOLE or self.body.any():
                mask = self.body if region == BODY else None
                found[region] = {}
                for name in self.ruler.protocol.metrics:
                    if name in METRICS:
                        found[region] |= self._score(name, mask)
        return found

    def _score(self, name: str, mask: Mask) -> Scores:
        if self.ref.ndim == 2 or name in OVER_CHANNELS:
            score = METRICS[name](self, over_channels(mask, self.ref))
            return score if isinstance(score, dict) else {name: score}
        return mean_scores([channel._score(name, mask) for channel in self._channels])

    @cached_property
    def _channels(self) -> list[SlicePair]:
        return [SlicePair(self.x[..., c], self.ref[..., c], self.body, self.ruler) for c in range(self.ref.shape[-1])]

    @cached_property
    def windowed(self) -> Images:
        return self.ruler.windowed(self.x), self.ruler.windowed(self.ref)

    @cached_property
    def limited(self) -> Images:
        return self.ruler.limited(self.x), self.ruler.limited(self.ref)

    @cached_property
    def grey_levels(self) -> Images:
        return self.ruler.grey_levels(self.x), self.ruler.grey_levels(self.ref)

    @cached_property
    def data_range(self) -> float:
        return self.ruler.data_range(self.windowed[1])

    @cached_property
    def tissues(self) -> dict[str, NDArray[Any]]:
        return tissue_classes(self.ref, self.ruler.modality, self.body)

    @cached_property
    def gaussian_map(self) -> NDArray[Any]:
        return ssim_map(*self.windowed, self.data_range, "gaussian")

    @cached_property
    def uniform_map(self) -> NDArray[Any]:
        return ssim_map(*self.windowed, self.data_range, "uniform")


def over_channels(mask: Mask, image: NDArray[Any]) -> Mask:
    """The mask for every channel, where the image has channels behind the mask's axes."""
    return mask if mask is None or mask.ndim == image.ndim else np.broadcast_to(mask[..., None], image.shape)


def _psnr(pair: SlicePair, mask: Mask) -> float:
    # a constant reference has no range of its own
    return psnr(*pair.windowed, pair.data_range, mask) if pair.data_range > 0 else NONE


def _ssim(definition: SsimDefinition) -> Callable[[SlicePair, Mask], float]:
    def score(pair: SlicePair, mask: Mask) -> float:
        if pair.data_range == 0:
            return NONE
        similarity = pair.gaussian_map if definition == "gaussian" else pair.uniform_map
        return ssim_mean(similarity, definition, mask)

    return score


def _ssim_padded(pair: SlicePair, mask: Mask) -> float:
    return ssim_zero_padded(*pair.windowed, pair.data_range) if mask is None and pair.data_range > 0 else NONE


def _vif(pair: SlicePair, mask: Mask) -> float:
    large = min(pair.x.shape) >= LEAST_SIDE
    return vif(*pair.grey_levels, pair.ruler.protocol.vif_levels, mask) if large else NONE


def _spectrum(pair: SlicePair, mask: Mask) -> float:
    x, ref = pair.windowed if mask is None else (regions_inside(image, mask, PATCH) for image in pair.windowed)
    return spectrum_error(x, ref) if x.size and np.ptp(ref) > 0 else NONE


def _lpips(pair: SlicePair, mask: Mask) -> float:
    files = pair.ruler.protocol.lpips
    if mask is not None or files is None or min(pair.x.shape) < LPIPS_SIDE:
        return NONE
    start, end = pair.ruler.scale
    x, ref = ((image - start) * (2 / (end - start)) - 1 for image in pair.windowed)
    return _network(*files)(x, ref)


@lru_cache
def _network(backbone: str, linear: str) -> Lpips:
    """Read once."""
    return read_lpips(Path(backbone), Path(linear))


def _tissue_bias(pair: SlicePair, mask: Mask) -> Scores:
    inside = {name: at if mask is None else at & mask for name, at in pair.tissues.items()}
    return {f"bias_{name}": error for name, error in tissue_bias(*pair.limited, inside).items()}


def _cnr_ratio(pair: SlicePair, mask: Mask) -> float:
    """CNR of the image over the reference's: soft tissue against fat in CT, foreground against background elsewhere."""
    names = ("soft", "fat") if "fat" in pair.tissues else ("foreground", "background")
    first, second = (pair.tissues[name] if mask is None else pair.tissues[name] & mask for name in names)
    if min(first.sum(), second.sum()) < LEAST:
        return NONE
    own, expected = (cnr(image, first, second) for image in pair.limited)
    return own / expected if 0 < expected < np.inf else NONE


OVER_CHANNELS = ("psnr", "mae", "rmse", "bias")
METRICS: dict[str, Callable[[SlicePair, Mask], float | Scores]] = {
    "psnr": _psnr,
    "ssim_gaussian": _ssim("gaussian"),
    "ssim_uniform": _ssim("uniform"),
    "ssim_gaussian_padded": _ssim_padded,
    "mae": lambda pair, mask: mae(*pair.limited, mask),
    "rmse": lambda pair, mask: rmse(*pair.limited, mask),
    "bias": lambda pair, mask: bias(*pair.limited, mask),
    "tissue_bias": _tissue_bias,
    "vif": _vif,
    "spectrum": _spectrum,
    "cnr_ratio": _cnr_ratio,
    "lpips": _lpips,
}
"""Flicker and ``ssim_uniform_3d`` are no slice's: ``scores.py`` has them."""
