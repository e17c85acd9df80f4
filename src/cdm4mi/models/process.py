"""How a condition enters the process: what the network is shown, and x0_hat from its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cdm4mi.diffusion.consistency import with_mean_of
from cdm4mi.diffusion.parameterizations import Latent, Parameterization
from cdm4mi.diffusion.paths import GaussianPath, broadcast
from cdm4mi.diffusion.sampling import Denoiser
from cdm4mi.diffusion.sdedit import FACTOR, start_time
from cdm4mi.diffusion.times import given_times, time_list
from cdm4mi.models.condition import Condition
from cdm4mi.networks import NetworkCondition

Network = Callable[[Tensor, Tensor, Any], Tensor]
"""out = network(x, t, condition), the condition as ``DiffusionWrapper`` takes it."""


@dataclass(frozen=True)
class ConditionalProcess:
    """A path, a parameterization, and how the condition is brought to them.

    level_channel: the network gets the noise level of the condition as one more channel; texture_channels: its texture
    as three, which are constant. sigma_r: root mean square of x0 - anchor on [-1, 1]; None: the noise level of each
    sample is taken for it. keep_mean: every x0_hat gets the mean of the anchor. fold: of the network, whose sub-grids
    of pixels get it each. channels: of the image, where a condition y may have more than these.
    """

    path: GaussianPath
    parameterization: Parameterization
    level_channel: bool = False
    texture_channels: bool = False
    sigma_r: float | None = None
    keep_mean: bool = False
    fold: int = 1
    channels: int | None = None

    @property
    def conditioned_on_level(self) -> bool:
        """Whether the noise level of the condition changes the result."""
        return self.level_channel or (self.parameterization.name == "precond" and self.sigma_r is None)

    @property
    def anchored(self) -> bool:
        """Whether path or parameterization rest on the condition."""
        return self.parameterization.rests_on_condition or self.path.is_bridge

    def noisy_image(self, y: Tensor) -> Tensor:
        """The channels of a condition (N, C or more, H, W) that are the noisy image itself."""
        return y[:, : self.channels]

    def condition(
        self,
        y: Tensor,
        sigma: Tensor,
        vector: Tensor | None = None,
        anchor: Tensor | None = None,
        texture: Tensor | None = None,
        relative_level: Tensor | None = None,
    ) -> Condition:
        """The condition of images y (N, C or more, H, W) with noise sigma (N,); anchor: the noisy image where None."""
        return Condition(y, sigma, texture, relative_level, vector, self.noisy_image(y) if anchor is None else anchor)

    def condition_of(self, batch: Mapping[str, Any]) -> Condition:
        """The condition of a batch of pairs: ``y``, ``sigma`` and, where they are there, the rest."""
        return self.condition(
            batch["y"],
            batch["sigma"],
            batch.get("vector"),
            texture=batch.get("texture"),
            relative_level=batch.get("relative_level"),
        )

    def keeping_mean(self, wanted: bool | None) -> ConditionalProcess:
        """The process with ``keep_mean`` as wanted; None: where the network predicts eps and all of its mean."""
        if wanted is None:
            wanted = self.parameterization.name == "eps" and not self.anchored
        return replace(self, keep_mean=wanted)

    def times(self, spacing: str, steps: int, given: Sequence[int] | None = None) -> list[int]:
        """The times that sampling visits: those given, else ``steps`` (or all that there are) up to the last useful."""
        if given is not None:
            return given_times(given, self.path)
        last = self.parameterization.last_time(self.path)
        return time_list(spacing, self.path, min(steps, last + 1), last)

    def times_from_condition(
        self, spacing: str, steps: int, sigma: float, start_level: float | None = None, factor: float = FACTOR
    ) -> list[int]:
        """The times that sampling visits where it begins with the condition as a latent (``start_from``).

        sigma: noise of the condition; start_level: noise c / a of the first time, both on [-1, 1]; None: ``factor``
        times that of the condition.
        """
        start = start_time(self.path, max(sigma, start_level or factor * sigma))
        return time_list(spacing, self.path, min(steps, start + 1), start)

    def residual_sigma(self, cond: Condition) -> Tensor | None:
        """Root mean square of x0 - anchor of each sample, (N,); None where the noise level is not known."""
        if cond.sigma is None or self.sigma_r is None:
            return cond.sigma
        return torch.full_like(cond.sigma, self.sigma_r)

    def network_condition(self, cond: Condition) -> Any:
        """The condition as the wrapper takes it: with channels of sigma and texture where those are set."""
        y = cond.y
        if y is None:
            return NetworkCondition()
        if cond.as_given:
            return y
        if self.level_channel and cond.sigma is not None:
            level = broadcast(cond.sigma, y).expand(-1, 1, *y.shape[2:])
            y = torch.cat([y, level if cond.relative_level is None else level * cond.relative_level], dim=1)
        if self.texture_channels:
            if cond.texture is None:
                raise ValueError("this process has texture_channels set and was given a condition without a texture")
            y = torch.cat([y, cond.texture[:, :, None, None].to(y).expand(-1, -1, *y.shape[2:])], dim=1)
        return NetworkCondition(y, cond.vector)

    def latent(self, x_t: Tensor, t: Tensor, cond: Condition) -> Latent:
        """The point x_t (N, C, H, W) at times t (N,) with what path and parameterization need of the condition."""
        return Latent(self.path, x_t, t, cond.anchor, self.residual_sigma(cond))

    def output(self, network: Network, z: Latent, cond: Condition) -> Tensor:
        """The network's output at a point of the path, float32."""
        return network(self.parameterization.network_input(z), z.t, self.network_condition(cond)).float()

    def denoiser(self, network: Network, cond: Condition) -> Denoiser:
        """The estimate of x0 as a function of x_t (N, C, H, W) and t (N,), one network call each."""

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            z = self.latent(x_t, t, cond)
            x0 = self.parameterization.x0(self.output(network, z, cond), z)
            return with_mean_of(x0, cond.anchor, self.fold) if self.keep_mean and cond.anchor is not None else x0

        return denoise

    def mean(self, network: Network, cond: Condition) -> Tensor:
        """The estimate of x0 given y alone, for precond: one network call at the start of the path, without noise."""
        t = torch.full((cond.y.shape[0],), self.path.timesteps - 1, device=cond.y.device)
        return self.denoiser(network, cond)(self.start(torch.zeros_like(self.noisy_image(cond.y)), cond), t)

    def start(self, noise: Tensor, cond: Condition, t: int | None = None) -> Tensor:
        """x at the time t (T - 1 if None): around the anchor where the process rests on it, else pure noise."""
        if self.parameterization.name == "precond" and cond.anchor is not None:
            return self.path.start(noise, cond.anchor, self.residual_sigma(cond), t)
        return self.path.start(noise, cond.anchor if self.path.is_bridge else None, t=t)
