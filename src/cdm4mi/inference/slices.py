"""SliceRestorer: slices on [-1, 1] in, their estimates out: what the network is told, windows, samples, strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.acquisition import UNKNOWN_SPACING, Spacing, acquisition_vector
from cdm4mi.diffusion.sampling import Denoiser
from cdm4mi.errors import UserError
from cdm4mi.inference.compute import device_named, dtype_named, on_cpu
from cdm4mi.inference.orientations import averaged
from cdm4mi.inference.scan import WHITE, Texture
from cdm4mi.inference.strength import weakened
from cdm4mi.inference.tiling import tiled
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.condition import Condition
from cdm4mi.models.process import Network
from cdm4mi.models.sampler import Hook, Sampler
from cdm4mi.networks import DiffusionWrapper
from cdm4mi.networks.plain import PlainNetwork
from cdm4mi.networks.precision import arrange_for, rounded

PIXELS_AT_A_TIME = 2**18, 2**22
"""Of a batch on a CPU, whose caches hold no more, and on a GPU, which needs as many."""


class SliceRestorer:
    """Runs a trained model on slices whose noise level is known.

    model: from ``models.checkpoint.load_model``; sampling: how to draw (the model's own by default); device, precision:
    where, and in which number format the network computes (``inference.compute``). ``pixels_at_a_time`` is how many
    pixels of windows, where these are smaller than the slices, go through the network at once.
    A model without a condition is a prior: the scan, scaled, is x_t at the time whose noise is the scan's, and what is
    drawn from there is a sample of the posterior for white noise. It always starts there (``start_from`` y).
    """

    def __init__(
        self,
        model: TrainedModel,
        sampling: SamplingConfig | None = None,
        device: torch.device | str | None = None,
        precision: str = "fp32",
    ) -> None:
        self.model = model
        self.channels = model.config.model.channels
        self.sampling = sampling or model.config.sampling
        self.device = device_named(device)
        self.dtype = dtype_named(precision, self.device)
        self.pixels_at_a_time = PIXELS_AT_A_TIME[self.device.type != "cpu"]
        self.network = self._placed(model.network)
        self.regression = None if model.regression is None else self._placed(model.regression.network)
        self.prior = model.config.model.conditioning_key == "none" and not model.process.path.is_bridge
        self.process = model.process.keeping_mean(False if self.prior else self.sampling.keep_mean)
        self.degradation = model.config.data.noise
        if self.prior:
            self.sampling = self.sampling.model_copy(update={"start_from": "y"})
        elif self.sampling.estimate == "mean" and model.process.parameterization.name == "eps":
            # at the noisy end eps says next to nothing of x0
            self.sampling = self.sampling.model_copy(update={"estimate": "mean-of-k"})
        self.sampler = Sampler(self.process, self.sampling, prior=self.prior, default_steps=model.config.sampling.steps)
        tile = self.sampling.tile or model.config.model.image_size
        unet = self.network.diffusion_model
        multiple = unet.size_multiple
        self.least = max(multiple, unet.LEAST_SIDE) if isinstance(unet, PlainNetwork) else multiple
        if tile < self.least:
            raise UserError(field="tile", found=tile, expected=f"at least {self.least} pixels for this network")
        self.multiple = multiple
        self.tile = tile // multiple * multiple

    def restore(
        self,
        y: NDArray[Any],
        sigma: float | NDArray[Any],
        *,
        seed: int = 0,
        indices: list[int] | None = None,
        spacing: Spacing = UNKNOWN_SPACING,
        hook: Hook | None = None,
    ) -> NDArray[Any]:
        """Restore slices (N, rows, columns) on [-1, 1] with noise of standard deviation ``sigma`` on that scale.

        sigma: of all, or of each (N,); where sampling starts from y (``start_from``) its times are those of the most.
        y may be (N, channels, rows, columns), the image's own channels first, and has to be for a model of colour, of
        neighbouring slices or of other contrasts; the result then is (N, channels of the image, rows, columns).
        seed: decides the samples; indices: which images these are, for the noise; spacing: millimetres, for models
        told of the acquisition; hook: receives every intermediate state of the first sample.
        """
        return self.moments(y, sigma, seed=seed, indices=indices, spacing=spacing, hook=hook)[0]

    @torch.inference_mode()
    def moments(
        self,
        y: NDArray[Any],
        sigma: float | NDArray[Any],
        *,
        seed: int = 0,
        indices: list[int] | None = None,
        spacing: Spacing = UNKNOWN_SPACING,
        zero: float = -1.0,
        texture: Texture = WHITE,
        relative_level: NDArray[Any] | None = None,
        share: NDArray[Any] | None = None,
        hook: Hook | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and standard deviation (0 for one) of the estimates of each slice (``Sampler.estimates``).

        The deviation is a single sample's, unbiased where x0 is linear in the noise; it is not calibrated. zero: what
        stands for the physical value 0 on [-1, 1], where the bias of magnitudes is. texture: of the noise, for models
        that are told; relative_level: (rows, columns), its level over ``sigma`` in every slice, for models that are
        given a map (``level_map_share``), 1 if None. share: (N,), of what would be taken away from each slice that is,
        all if None. Other arguments as ``restore``; both as its result, on [-1, 1].
        """
        plain = y.ndim == 3
        y = y[:, None] if plain else y
        expected = self.channels + self.model.config.further_channels
        if y.shape[1] != expected:
            raise UserError(f"condition: found {y.shape[1]} channel(s), expected {expected} for {self.model.name}")
        image, rows, columns = self._padded(torch.from_numpy(np.ascontiguousarray(y, np.float32)))
        relative = None
        if relative_level is not None:
            levels = torch.from_numpy(np.ascontiguousarray(relative_level, np.float32))[None, None]
            relative = self._padded(levels)[0].to(self.device).expand(len(y), -1, -1, -1)
        sigmas = np.broadcast_to(sigma, len(y))
        cond = self._condition(image.to(self.device), sigmas, spacing, zero, texture, relative)
        indices = list(range(len(y))) if indices is None else indices
        denoise = self._tiled(partial(self.process.denoiser, self._precise(self.network)), cond)
        noisy = self.process.noisy_image(cond.y)
        mean, squares, count = noisy, torch.zeros((), device=self.device), 0
        for estimate in self.sampler.estimates(denoise, cond, seed, indices, hook):  # Welford's running moments
            if self.sampling.strength < 1:
                estimate = self._weakened(estimate, noisy)
            count += 1
            if count == 1:
                mean = estimate.to(noisy.dtype)
                continue
            delta = estimate - mean
            mean = mean + delta / count
            squares = squares + delta * (estimate - mean)
        # the mean of pairs does not vary in the linear case, and takes no degree of freedom away
        deviation = None if count == 1 else (squares / (count - count % 2 / count)).sqrt()
        if share is not None and share.min() < 1:
            shares = torch.tensor(share, dtype=mean.dtype, device=mean.device)[:, None, None, None]
            mean = noisy + shares * (mean - noisy)
            deviation = None if deviation is None else shares * deviation
        means = on_cpu(mean[..., :rows, :columns]).numpy()
        deviations = np.zeros_like(means) if deviation is None else on_cpu(deviation[..., :rows, :columns]).numpy()
        return (means[:, 0], deviations[:, 0]) if plain else (means, deviations)

    def settings(self, sigma: float, planes: int) -> dict[str, Any]:
        """The sampling section as it is carried out for noise of standard deviation ``sigma`` on [-1, 1], in so many
        planes of a volume."""
        settings = self.sampling.model_dump(mode="json")
        settings |= {"steps": len(self.sampler.times(sigma)), "planes": planes}
        if self.sampling.keep_low_frequencies is None:  # records and identifiers of other restorations do not name it
            del settings["keep_low_frequencies"]
        if self.sampling.tile is not None:  # what was asked for, down to a multiple of what the network takes
            settings["tile"] = self.tile
        return settings

    @torch.inference_mode()
    def call_once(self, side: int) -> Tensor:
        """What the network makes of an empty image of side x side pixels."""
        empty = torch.zeros(1, self.channels + self.model.config.further_channels, side, side, device=self.device)
        cond = self._condition(empty, np.full(1, 0.1), UNKNOWN_SPACING, -1.0, WHITE)
        last = torch.full((1,), self.process.path.timesteps - 1, device=self.device)
        return self.process.denoiser(self._precise(self.network), cond)(self.process.noisy_image(cond.y), last)

    def _weakened(self, estimate: Tensor, noisy: Tensor) -> Tensor:
        """An estimate of the slices at the strength of the sampling section."""
        x, y = (on_cpu(images.float()).numpy() for images in (estimate, noisy))
        return torch.from_numpy(weakened(x, y, self.sampling.strength)).to(estimate)

    def _condition(
        self,
        y: Tensor,
        sigma: NDArray[Any],
        spacing: Spacing,
        zero: float,
        texture: Texture,
        relative_level: Tensor | None = None,
    ) -> Condition:
        """What the model is told of slices y (N, C or more, H, W) with noise sigma (N,) on [-1, 1]."""
        process, regression, names = self.process, self.model.regression, self.model.config.model.acquisition_vector
        vector = None
        if names:
            vectors = [acquisition_vector(names, float(level), spacing) for level in sigma]
            vector = torch.tensor(vectors, device=y.device)
        sigmas = torch.tensor(sigma, dtype=torch.float32, device=y.device)
        textures = torch.tensor([texture], device=y.device).expand(len(y), -1)
        cond = process.condition(y, sigmas, vector, texture=textures, relative_level=relative_level)
        if regression is not None and self.regression is not None:
            network, mean = self._precise(self.regression), regression.process.mean
            estimate = self._tiled(lambda windows: lambda x_t, t: mean(network, windows), cond)
            unused = torch.zeros(len(y), dtype=torch.long, device=y.device)
            return replace(cond, anchor=estimate(process.noisy_image(y), unused))
        if process.keep_mean and not process.anchored:
            images = process.noisy_image(y).split(1)
            unbiased = [
                self.degradation.unbiased(image, float(level), zero)
                for image, level in zip(images, sigma, strict=True)
            ]  # fmt: skip
            return replace(cond, anchor=torch.cat(unbiased))
        return cond

    def _placed(self, network: DiffusionWrapper) -> DiffusionWrapper:
        """A network on the device, as that computes it fastest."""
        network = network.to(self.device).eval()
        arrange_for(network, self.device)
        rounds = self.device.type == "cuda" and self.dtype != torch.float32
        return rounded(network, self.dtype) if rounds else network

    def _precise(self, network: Network) -> Network:
        """The network in the number format of this restoration."""

        def call(x: Tensor, t: Tensor, condition: Any) -> Tensor:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return network(x, t, condition)

        return call

    def _tiled(self, denoiser: Callable[[Condition], Denoiser], cond: Condition) -> Denoiser:
        batch = max(1, self.pixels_at_a_time // self.tile**2)
        return tiled(averaged(denoiser, self.sampling.orientations), cond, self.tile, self.sampling.overlap, batch)

    def _padded(self, image: Tensor) -> tuple[Tensor, int, int]:
        """Mirror the lower and right border out to the size that the network needs."""
        rows, columns = image.shape[-2:]
        tall, wide = (-(-n // self.multiple) * self.multiple for n in (rows, columns))
        if (tall, wide) == (rows, columns):
            return image, rows, columns
        mode = "reflect" if tall - rows < rows and wide - columns < columns else "replicate"
        return F.pad(image, (0, wide - columns, 0, tall - rows), mode=mode), rows, columns
