"""A trained model as the teacher of a faster one: its deterministic sampler as a map from noise to an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cdm4mi.diffusion.sampling import SamplingState, sample
from cdm4mi.diffusion.solvers.make import make_solver
from cdm4mi.diffusion.times import time_list
from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import TrainedModel


@dataclass(frozen=True)
class Lesson:
    """Where sampling starts (time T - 1), the teacher's estimate there, and the image it ends at: (N, C, H, W) each."""

    start: Tensor
    first: Tensor
    end: Tensor


class Teacher:
    """Draws with DPM-Solver++ 2M: one noise field gives one image, the sample of the model's posterior that it names.

    steps: network calls a sample, even in the log-SNR. Of second order, so that ten keep the spread that DDIM's lose
    (``records/solvers.md``). Raises UserError for a model that has no such map.
    """

    def __init__(self, model: TrainedModel, steps: int) -> None:
        path = model.process.path
        if model.process.parameterization.name == "eps":
            raise UserError(f"{model.name}: predicts eps, expected x0, v or precond (its first call is no estimate)")
        if float(path.at(path.timesteps - 1).c) == 0:
            raise UserError(
                f"{model.name}: its path ends without noise, expected one whose samples a noise field names"
            )
        self.model = model
        self.times = time_list("logsnr", path, steps)
        self.solver = make_solver("dpmpp_2m", path=path)

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        level: Tensor,
        noise: Tensor,
        vector: Tensor | None = None,
        anchor: Tensor | None = None,
        *,
        first_only: bool = False,
    ) -> Lesson:
        """The lesson of a condition y (N, C or more, H, W) at levels (N,) for a unit noise field (N, C, H, W).

        anchor: the image's own channels of y where None. first_only: stop after the first call, whose estimate is then
        the end too.
        """
        model, process = self.model, self.model.process
        network = model.network.to(y.device).eval()
        anchor = process.own(y) if anchor is None else anchor
        states: list[SamplingState] = []

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return process.estimate(network, x_t, t, y, level, vector, anchor)

        start = process.start(noise, anchor, level)
        end = sample(
            denoise,
            process.path,
            self.times[:1] if first_only else self.times,
            self.solver,
            start,
            noise=lambda _: noise,  # not drawn from
            y=anchor if process.path.is_bridge else None,
            clip=model.config.sampling.clip,
            hook=lambda state: states.append(state) if state.i == 0 else None,
        )
        return Lesson(start, states[0].x0_hat, end)
