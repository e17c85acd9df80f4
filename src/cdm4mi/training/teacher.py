"""A trained model as the teacher of a faster one: its deterministic sampler as a map from noise to an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cdm4mi.diffusion.sampling import SamplingState
from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.condition import Condition
from cdm4mi.models.sampler import Sampler


@dataclass(frozen=True)
class DistillTarget:
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
            raise UserError(f"{model.where}: predicts eps, expected x0, v or precond (its first call is no estimate)")
        if float(path.at(path.timesteps - 1).c) == 0:
            raise UserError(
                f"{model.where}: its path ends without noise, expected one whose samples a noise field names"
            )
        self.model = model
        settings = {"solver": "dpmpp_2m", "spacing": "logsnr", "steps": steps, "times": None, "estimate": "sample"}
        settings |= {"start_from": "noise", "dynamic_threshold": None}
        self.sampler = Sampler(model.process, model.config.sampling.model_copy(update=settings))

    @torch.no_grad()
    def __call__(self, cond: Condition, noise: Tensor, *, first_only: bool = False) -> DistillTarget:
        """The target for a condition with its anchor and a unit noise field (N, C, H, W).

        first_only: stop after the first call, whose estimate is then the end too.
        """
        states: list[SamplingState] = []
        network = self.model.network.to(noise.device).eval()
        end = self.sampler.draw(
            self.model.process.denoiser(network, cond),
            cond,
            lambda _: noise,  # the start's; steps draw none
            times=self.sampler.times(0.0)[:1] if first_only else None,
            hook=lambda state: states.append(state) if state.i == 0 else None,
        )
        return DistillTarget(states[0].x_t, states[0].x0_hat, end)
