"""How a condition enters the process: what the network is shown, and x0_hat from its output.

The condition y plays two parts: the network is shown it, and the path or the parameterization may rest on it. In the
second part a regression's mean of x0 given y can stand in its place: the ``anchor``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cdm4mi.diffusion.consistency import with_mean_of
from cdm4mi.diffusion.parameterizations import Latent, Parameterization
from cdm4mi.diffusion.paths import GaussianPath
from cdm4mi.diffusion.sdedit import FACTOR, start_time
from cdm4mi.diffusion.times import given_times, time_list
from cdm4mi.networks import Condition

Network = Callable[[Tensor, Tensor, Condition], Tensor]


@dataclass(frozen=True)
class ConditionalProcess:
    """A path, a parameterization, and how the condition is brought to them.

    level_channel: the network gets the noise level of the condition as one more constant channel. sigma_r: root mean
    square of x0 - anchor on [-1, 1]; None: the level of each sample is taken for it. keep_mean: every x0_hat gets the
    mean of the anchor. fold: of the network, whose sub-grids of pixels get it each. channels: of the image, where a
    condition y may have more than these: the noisy image's own come first, and path and parameterization rest on them.
    """

    path: GaussianPath
    parameterization: Parameterization
    level_channel: bool = False
    sigma_r: float | None = None
    keep_mean: bool = False
    fold: int = 1
    channels: int | None = None

    @property
    def conditioned_on_level(self) -> bool:
        """Whether the noise level of the condition changes the result."""
        return self.level_channel or (self.parameterization.name == "precond" and self.sigma_r is None)

    def own(self, y: Tensor) -> Tensor:
        """The channels of a condition that are the noisy image itself."""
        return y[:, : self.channels]

    def times(self, spacing: str, steps: int, given: Sequence[int] | None = None) -> list[int]:
        """The times that sampling visits: those given, else ``steps`` (or all that there are) up to the last useful."""
        if given is not None:
            return given_times(given, self.path)
        last = self.parameterization.last_time(self.path)
        return time_list(spacing, self.path, min(steps, last + 1), last)

    def times_from_condition(
        self, spacing: str, steps: int, level: float, start_level: float | None = None, factor: float = FACTOR
    ) -> list[int]:
        """The times that sampling visits where it begins with the condition as a latent (``start_from``).

        level: noise of the condition; start_level: noise c / a of the first time, both on [-1, 1]; None: ``factor``
        times that of the condition.
        """
        start = start_time(self.path, max(level, start_level or factor * level))
        return time_list(spacing, self.path, min(steps, start + 1), start)

    def spread(self, level: Tensor) -> Tensor:
        """sigma_r of each sample, (N, 1, 1, 1), from the levels (N,)."""
        level = level if self.sigma_r is None else torch.full_like(level, self.sigma_r)
        return level.reshape(-1, 1, 1, 1)

    def condition(self, y: Tensor, level: Tensor, vector: Tensor | None = None) -> Condition:
        """What the wrapper needs of an image y (N, C or more, H, W), its noise levels (N,) and a vector (N, D)."""
        if self.level_channel:
            y = torch.cat([y, level.reshape(-1, 1, 1, 1).to(y.dtype).expand(-1, 1, *y.shape[2:])], dim=1)
        return Condition(y, vector)

    @property
    def anchored(self) -> bool:
        """Whether path or parameterization rest on the condition."""
        return self.parameterization.rests_on_condition or self.path.is_bridge

    def latent(self, x_t: Tensor, t: Tensor, anchor: Tensor, level: Tensor) -> Latent:
        """The point x_t (N, C, H, W) at times t (N,) with what path and parameterization need of the anchor."""
        return Latent(self.path, x_t, t, anchor, self.spread(level))

    def output(self, network: Network, z: Latent, cond: Condition) -> Tensor:
        """The network's output at a point of the path, float32."""
        return network(self.parameterization.network_input(z), z.t, cond).float()

    def x0_hat(self, network: Network, z: Latent, cond: Condition, reference: Tensor | None = None) -> Tensor:
        """The estimate of x0 at a point of the path; reference: the image whose mean it gets, with ``keep_mean``."""
        x0 = self.parameterization.x0(self.output(network, z, cond), z)
        return with_mean_of(x0, reference, self.fold) if self.keep_mean and reference is not None else x0

    def keeping_mean(self, wanted: bool | None) -> ConditionalProcess:
        """The process with ``keep_mean`` as wanted; None: where the network predicts eps and all of its mean."""
        if wanted is None:
            wanted = self.parameterization.name == "eps" and not self.anchored
        return replace(self, keep_mean=wanted)

    def estimate(
        self,
        network: Network,
        x_t: Tensor,
        t: Tensor,
        y: Tensor,
        level: Tensor,
        vector: Tensor | None = None,
        anchor: Tensor | None = None,
    ) -> Tensor:
        """x0_hat (N, C, H, W): one network call. anchor: the image's own channels of y where None."""
        anchor = self.own(y) if anchor is None else anchor
        z = self.latent(x_t, t, anchor, level)
        return self.x0_hat(network, z, self.condition(y, level, vector), anchor)

    def mean(self, network: Network, y: Tensor, level: Tensor, vector: Tensor | None = None) -> Tensor:
        """The estimate of x0 given y alone, for precond: one network call at the start of the path, without noise."""
        t = torch.full((len(y),), self.path.timesteps - 1, device=y.device)
        own = self.own(y)
        return self.estimate(network, self.start(torch.zeros_like(own), own, level), t, y, level, vector)

    def start(self, noise: Tensor, anchor: Tensor, level: Tensor, t: int | None = None) -> Tensor:
        """x at the time t (T - 1 if None): around the anchor where the process rests on it, else pure noise."""
        if self.parameterization.name == "precond":
            return self.path.start(noise, anchor, self.spread(level), t)
        return self.path.start(noise, anchor if self.path.is_bridge else None, t=t)
