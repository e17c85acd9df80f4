"""What a lesion test compares: the input, classical denoisers, and models, behind one contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.intensity import window_for
from cdm4mi.io import Volume
from cdm4mi.models.checkpoint import TrainedModel

Array = NDArray[Any]
INPUT = "input"


@dataclass(frozen=True)
class Method:
    """restore: of images (n, slices, rows, columns) in physical units, their noise's standard deviation and the scan
    that they are parts of, the middle slices (n, rows, columns), restored. beside: slices that it sees on either side.
    whole: it is given whole slices in place of what is around the lesions.
    """

    restore: Callable[[Array, float, Volume], Array]
    beside: int = 0
    whole: bool = False


def untouched() -> Method:
    """The input."""
    return Method(lambda images, sigma, scan: images[:, images.shape[1] // 2])


def classical(type: str, settings: Any = None) -> Method:
    """A baseline at the measured noise level; settings: of it, its default if None."""
    baseline = BASELINES[type]
    baseline.require()

    def restore(images: Array, sigma: float, scan: Volume) -> Array:
        return np.stack([baseline(image[len(image) // 2], sigma, settings) for image in images])

    return Method(restore)


def trained(model: TrainedModel, sampling: SamplingConfig | None = None, seed: int = 0, device: str = "auto") -> Method:
    """A model as ``denoise`` runs it in one plane, given the measured noise level; the same random numbers for every
    image.

    One that takes a map of the noise level gets whole slices, and measures level and map itself. Raises UserError for a
    model of colour images or several contrasts.
    """
    data = model.config.data
    if model.config.model.channels != 1 or data.contrasts:
        what = "data.contrasts" if data.contrasts else "colour images"
        raise UserError(f"{model.name}: is a model of {what}, expected one of grey images (alone, or with neighbours)")
    # draws of noise stand beside each other as slices, which are no neighbours
    restorer = Restorer(model, changed(sampling or model.config.sampling, planes=1), device)
    whole = data.level_map_share > 0
    # no draw of a slice's own, no neighbours
    together = not data.neighbours and restorer.slices.sampling.estimate == "mean"

    def restore(images: Array, sigma: float, scan: Volume) -> Array:
        window = window_for(scan, data.window, data.percentiles)

        def restored(stack: Array) -> Array:
            volume = Volume(stack, scan.affine, scan.modality)
            return restorer.restore(
                volume, noise=None if whole else sigma, seed=seed, normalisation=window
            ).volume.array

        middle = images.shape[1] // 2
        if together:
            return restored(images[:, middle])
        return np.stack([restored(image)[middle] for image in images])

    return Method(restore, data.neighbours, whole)
