"""A picture of the denoising of validation pairs, drawn while a model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cdm4mi.diffusion.sampling import SamplingState
from cdm4mi.measure.pictures import steps_picture
from cdm4mi.training.modules import DDPM, ConditionDDPM

SHOWN = 6
MOST_STEPS = 50


def denoising_picture(path: Path, module: DDPM, pair: dict[str, Tensor]) -> None:
    """Sample the clean image of the first pair with the configured solver (at most 50 steps) and draw how it went.

    pair: a batch as the dataset gives it; the picture shows condition, intermediate x_t and x0_hat, result, target.
    """
    first = {k: v[:1] for k, v in pair.items()}
    settings, conditional = module.config.sampling, isinstance(module, ConditionDDPM)
    states: list[SamplingState] = []
    module.sample(
        first["y"] if conditional else None,
        sigma=first["sigma"],
        texture=first.get("texture"),
        vector=first.get("vector"),
        steps=None if settings.times else min(settings.steps, MOST_STEPS, module.process.path.timesteps),
        size=(first["x0"].shape[-2], first["x0"].shape[-1]),
        seed=module.config.seed,
        hook=states.append,
    )
    chosen = sorted({round(i * (len(states) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    steps = [(states[i].t, _image(states[i].x_t), _image(states[i].x0_hat)) for i in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    condition = _image(module.process.noisy_image(first["y"])) if conditional else None
    steps_picture(path, steps, condition=condition, target=_image(first["x0"]))


def _image(batch: Tensor) -> NDArray[Any]:
    """(rows, columns), of colour (rows, columns, 3)."""
    image = batch[0].float().cpu().numpy()
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
