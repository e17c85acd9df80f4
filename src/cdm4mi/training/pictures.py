"""A picture of the denoising of validation pairs, drawn while a model trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdm4mi.config.schema import Config
from cdm4mi.diffusion.noise import SeededNoise
from cdm4mi.diffusion.registry import make_solver
from cdm4mi.diffusion.sampling import SamplingState, sample
from cdm4mi.measure.pictures import steps_picture
from cdm4mi.training.modules import DDPM, ConditionDDPM

SHOWN = 6
MOST_STEPS = 50


def denoising_picture(path: Path, module: DDPM, pair: dict[str, Tensor], config: Config) -> None:
    """Sample the clean image of the first pair with the configured solver (at most 50 steps) and draw how it went.

    pair: a batch as the dataset gives it; the picture shows condition, intermediate x_t and x0_hat, result, target.
    """
    first = {k: v[:1] for k, v in pair.items()}
    x0 = first["x0"]
    path_, process, settings = module.process.path, module.process, config.sampling
    times = process.times(settings.spacing, min(settings.steps, MOST_STEPS), settings.times)
    noise = SeededNoise(config.seed, [0], tuple(x0.shape[1:]), x0.device)
    conditional = isinstance(module, ConditionDDPM)
    anchor = module.anchor(first)
    unanchored = process.own(first["y"]) if conditional else noise.draw(0)
    start = process.start(noise.draw(0), unanchored if anchor is None else anchor, first["level"], times[0])

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        z = module.latent(first, x_t, t, anchor)
        return process.parameterization.x0(process.output(module.model, z, module.condition(first)), z)

    states: list[SamplingState] = []
    with torch.no_grad():
        solver = make_solver(settings.solver, settings.eta, path_)
        sample(
            denoise,
            path_,
            times,
            solver,
            start,
            noise=noise.draw,
            y=anchor,
            clip=settings.clip,
            dynamic_threshold=settings.dynamic_threshold,
            hook=states.append,
        )
    chosen = sorted({round(i * (len(states) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    steps = [(states[i].t, _image(states[i].x_t), _image(states[i].x0_hat)) for i in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    steps_picture(path, steps, condition=_image(process.own(first["y"])) if conditional else None, target=_image(x0))


def _image(batch: Tensor) -> np.ndarray:
    """(rows, columns), of colour (rows, columns, 3)."""
    image = batch[0].float().cpu().numpy()
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
