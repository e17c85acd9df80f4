"""Sampler: draws the clean image of a condition; times, start and solver follow from the sampling section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.diffusion.noise import SeededNoise
from cdm4mi.diffusion.sampling import Denoiser, SamplingState, sample
from cdm4mi.diffusion.sdedit import FACTOR, start_from, start_time
from cdm4mi.diffusion.solvers.make import make_solver, network_calls
from cdm4mi.errors import UserError
from cdm4mi.models.condition import Condition
from cdm4mi.models.process import ConditionalProcess

Hook = Callable[[SamplingState], None]


class Sampler:
    """Draws by a process and a sampling section, whatever the network is and however it is made to see an image.

    prior: the network knows no condition, and the noisy image is the latent that sampling starts from (``start_from``
    y at its own noise). default_steps: a number of steps that nobody chose; where it is more than the path has, all of
    the path's are taken. Raises UserError for more steps than that otherwise.
    """

    def __init__(
        self,
        process: ConditionalProcess,
        settings: SamplingConfig,
        *,
        prior: bool = False,
        default_steps: int | None = None,
    ) -> None:
        self.process, self.settings, self.prior = process, settings, prior
        self.one_call = settings.estimate == "mean"
        timesteps = process.path.timesteps
        steps = min(settings.steps, timesteps) if settings.steps == default_steps else settings.steps
        if not self.one_call and settings.times is None and steps > timesteps:
            raise UserError(f"`steps`: found {steps}, expected 1 to {timesteps} (the model's timesteps)")
        self.solver = make_solver(settings.solver, settings.eta, process.path)
        self._times = process.times(settings.spacing, 1 if self.one_call else steps, self._given_times)

    @property
    def _given_times(self) -> list[int] | None:
        return None if self.one_call else self.settings.times

    @property
    def steps(self) -> int:
        """Times that sampling visits at most."""
        return len(self._times)

    def times(self, sigma: float) -> list[int]:
        """The times that sampling visits for an input with noise sigma on [-1, 1]: fewer where it starts from y."""
        if self.one_call or self.settings.start_from == "noise" or self._given_times is not None:
            return self._times
        factor = 1.0 if self.prior else FACTOR
        spacing, first = self.settings.spacing, self.settings.start_level
        return self.process.times_from_condition(spacing, self.steps, sigma, first, factor)

    def network_calls(self, sigma: float) -> int:
        """Calls of the network for each pixel of an image."""
        orientations: int = self.settings.orientations
        if self.one_call:
            return orientations
        calls = network_calls(self.settings.solver, len(self.times(sigma)))
        return orientations * calls * (1 if self.settings.estimate == "sample" else self.settings.samples)

    def estimates(
        self, denoise: Denoiser, cond: Condition, seed: int, indices: Sequence[int], hook: Hook | None = None
    ) -> Iterator[Tensor]:
        """What the estimate of the settings is the mean of: one call's result, one sample, or K samples.

        Of K samples, every second one has the noise of the one before it, negated (antithetic variates, Hammersley and
        Morton 1956): each is a sample as good as any, and their mean is nearer to the posterior's than that of
        independent ones. seed, indices: decide the noise of each image; hook: receives the states of the first one.
        """
        image = self.process.noisy_image(cond.y)
        for k in range(self.settings.samples if self.settings.estimate == "mean-of-k" else 1):
            noise = SeededNoise(seed, indices, tuple(image.shape[1:]), image.device, k // 2, negated=k % 2 == 1)
            if self.one_call:
                yield self.first_estimate(denoise, cond, noise.draw, hook)
            else:
                yield self.draw(denoise, cond, noise.draw, hook=hook if k == 0 else None)

    def first_estimate(
        self, denoise: Denoiser, cond: Condition, noise: Callable[[int], Tensor], hook: Hook | None = None
    ) -> Tensor:
        """One call at the noisy end: the mean of x0 given y. Where nothing but x_t is known, at the noise of y."""
        path, image = self.process.path, self.process.noisy_image(cond.y)
        if self.prior:
            sigma = _known_sigma(cond)
            t = start_time(path, float(sigma.max()))
            x_t = start_from(path, image, sigma, t, noise(0))
        else:
            t = path.timesteps - 1
            # precond rests on the condition; every other network knows x_t with its noise only
            bare = self.process.parameterization.name == "precond"
            x_t = self.process.start(torch.zeros_like(image) if bare else noise(0), cond)
        x0 = denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        if hook is not None:
            hook(SamplingState(0, t, x_t, x0))
        return x0

    def draw(
        self,
        denoise: Denoiser,
        cond: Condition,
        noise: Callable[[int], Tensor],
        *,
        times: Sequence[int] | None = None,
        hook: Hook | None = None,
    ) -> Tensor:
        """One sample of each image, (N, C, H, W) on [-1, 1].

        denoise: the process's denoiser for this condition, or one that sees it in windows. noise(i): unit noise, 0 for
        the start and i + 1 for step i; times: those to visit, the sampler's own where None; hook: called with every
        intermediate state.
        """
        process, settings = self.process, self.settings
        from_y = settings.start_from == "y" and cond.sigma is not None
        if times is None:
            times = self.times(float(_known_sigma(cond).max())) if from_y else self._times
        if from_y:
            x_start = start_from(process.path, process.noisy_image(cond.y), _known_sigma(cond), times[0], noise(0))
        else:
            x_start = process.start(noise(0), cond, times[0])
        return sample(
            denoise,
            process.path,
            times,
            self.solver,
            x_start,
            noise=noise,
            y=cond.anchor if process.path.is_bridge else None,
            clip=settings.clip,
            dynamic_threshold=settings.dynamic_threshold,
            hook=hook,
        )


def _known_sigma(cond: Condition) -> Tensor:
    if cond.sigma is None:
        raise ValueError("sampling from the condition needs its noise level")
    return cond.sigma
