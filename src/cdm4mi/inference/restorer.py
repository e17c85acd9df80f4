"""Restorer: a volume in, the restored volume out, slice by slice, with a record of what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.acquisition import UNKNOWN_SPACING, Spacing, acquisition_vector
from cdm4mi.data.beside import contrast_slices, neighbours_of
from cdm4mi.data.normalise import Normalisation, modality_of, normalisation_for
from cdm4mi.degradation import make_degradation
from cdm4mi.diffusion.noise import SeededNoise
from cdm4mi.diffusion.sampling import SamplingState, sample
from cdm4mi.diffusion.sdedit import FACTOR, start_from, start_time
from cdm4mi.diffusion.solvers.make import make_solver, network_calls
from cdm4mi.errors import UserError
from cdm4mi.inference.calibration import HALF_WIDTH, INTERVAL, Calibration
from cdm4mi.inference.tiling import TiledEstimate
from cdm4mi.io import Derivation, Volume, input_record
from cdm4mi.measure.noise_level import estimate_sigma
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.networks.plain import PlainNetwork

OUTSIDE = 4.0
"""A voxel further out of the window than this many noise levels is metal or padding, not noise."""

Hook = Callable[[SamplingState], None]


@dataclass
class Restoration:
    """A restored volume and the record of how it came about (no patient data).

    spread: the standard deviation of the estimate at every voxel, in the scan's units, where the mean of K samples was
    asked for: calibrated where the model holds a calibration for these settings, else that of the samples
    (``record["uncertainty"]`` says which).
    """

    volume: Volume
    record: dict[str, Any] = field(default_factory=dict)
    spread: Volume | None = None


class Restorer:
    """Runs a trained model on volumes.

    model: from ``models.checkpoint.load_model``; sampling: how to draw (the model's own by default); device: where.
    A model without a condition is a prior: the scan, scaled, is x_t at the time whose noise is the scan's, and what is
    drawn from there is a sample of the posterior for white noise. It always starts there (``start_from`` y).
    """

    def __init__(
        self, model: TrainedModel, sampling: SamplingConfig | None = None, device: torch.device | str | None = None
    ) -> None:
        self.model = model
        self.channels = model.config.model.channels
        self.neighbours, self.contrasts = model.config.data.neighbours, len(model.config.data.contrasts)
        self.sampling = sampling or model.config.sampling
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = model.network.to(self.device).eval()
        self.prior = model.config.model.conditioning_key == "none" and not model.process.path.is_bridge
        self.process = model.process.keeping_mean(False if self.prior else self.sampling.keep_mean)
        self.degradation = make_degradation(model.config.data.noise)
        if self.prior:
            self.sampling = self.sampling.model_copy(update={"start_from": "y"})
        elif self.sampling.estimate == "mean" and model.process.parameterization.name == "eps":
            # at the noisy end eps says next to nothing of x0
            self.sampling = self.sampling.model_copy(update={"estimate": "mean-of-k"})
        estimate = self.sampling.estimate
        self.one_call = estimate == "mean"
        path = model.process.path
        self.steps = 1 if self.one_call else self.sampling.steps
        if self.steps == model.config.sampling.steps:  # nobody's choice: a default may be more than a short path has
            self.steps = min(self.steps, path.timesteps)
        given = None if self.one_call else self.sampling.times
        if given is None and self.steps > path.timesteps:
            raise UserError(f"steps: found {self.steps}, expected 1 to {path.timesteps} (the model's timesteps)")
        self.times = model.process.times(self.sampling.spacing, self.steps, given)
        self.steps = len(self.times)
        self.solver = make_solver(self.sampling.solver, self.sampling.eta, path)
        tile = self.sampling.tile or model.config.model.image_size
        unet = self.network.diffusion_model
        multiple = unet.size_multiple
        self.least = max(multiple, unet.LEAST_SIDE) if isinstance(unet, PlainNetwork) else multiple
        if tile < self.least:
            raise UserError(f"tile: found {tile}, expected at least {self.least} pixels for this network")
        self.multiple = multiple
        self.tile = tile // multiple * multiple

    def times_for(self, level: float) -> list[int]:
        """The times that sampling visits for an input with noise ``level`` on [-1, 1]: fewer where it starts from y."""
        if self.one_call or self.sampling.start_from == "noise" or self.sampling.times is not None:
            return self.times
        spacing, first, factor = self.sampling.spacing, self.sampling.start_level, 1.0 if self.prior else FACTOR
        return self.process.times_from_condition(spacing, self.steps, level, first, factor)

    def network_calls(self, level: float) -> int:
        """Calls of the network for each pixel of a slice (windows that overlap are counted once)."""
        if self.one_call:
            return 1
        calls = network_calls(self.sampling.solver, len(self.times_for(level)))
        return calls * (1 if self.sampling.estimate == "sample" else self.sampling.samples)

    def restore(
        self,
        volume: Volume,
        *,
        level: float | None = None,
        seed: int = 0,
        batch: int = 4,
        normalisation: Normalisation | None = None,
        contrasts: Sequence[Volume] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Restoration:
        """Restore every slice of a volume.

        contrasts: the other scans of the patient that the model was trained with, in the order of ``data.contrasts``.
        level: standard deviation of its noise in physical units; estimated from the volume when None. seed: decides
        every sample, whatever the batch. batch: slices at a time. normalisation: the intensity window, else the one of
        the training configuration for this scan. progress: called with (slices done, slices).
        """
        began = time.monotonic()
        if seed < 0:
            raise UserError(f"seed: found {seed}, expected a number of at least 0")
        if volume.channels != self.channels:
            raise UserError(
                f"scan: found images of {volume.channels} channel(s), expected the {self.channels} of the model"
            )
        if len(contrasts) != self.contrasts:
            raise UserError(
                f"--contrast: found {len(contrasts)} scan(s), expected {self.contrasts} (the training's data.contrasts)"
            )
        rows, columns = volume.images().shape[-2:]
        if min(rows, columns) < self.least:
            raise UserError(
                f"scan: found slices of {rows} x {columns} pixels, expected at least "
                f"{self.least} x {self.least}, the least that the network sees"
            )
        norm = normalisation or self._window(volume)
        y = norm.apply(volume.images())
        warnings: list[str] = []
        scale = 2 / (norm.high - norm.low)
        if level is not None and not (np.isfinite(level) and level >= 0):
            raise UserError(f"noise level: found {level}, expected a number of at least 0")
        sigma = measured_level(y.reshape(-1, *y.shape[-2:])) if level is None else level * scale
        used = self._trained_level(sigma, norm, warnings)
        limit = 1 + OUTSIDE * max(used, sigma)
        outside = np.abs(y) > limit
        if volume.padding is not None:
            outside |= volume.padding.reshape(y.shape)
        restored, spread = np.empty_like(y), np.empty_like(y)
        clipped = y.clip(-limit, limit)
        data = self.model.config.data
        beside = [contrast_slices(c, volume, data, f"--contrast {n}") for n, c in enumerate(contrasts, 1)]
        for first in range(0, len(y), batch):
            index = list(range(first, min(first + batch, len(y))))
            restored[index], spread[index] = self.restore_moments(
                self._condition(clipped, beside, index, volume),
                used,
                seed=seed,
                indices=index,
                spacing=volume.spacing,
                zero=float(norm.apply(np.zeros(()))),
            )
            if progress is not None:
                progress(index[-1] + 1, len(y))
        out = norm.invert(restored)
        out[outside] = volume.images()[outside]
        settings = self.sampling.model_dump(mode="json") | {"steps": len(self.times_for(used))}
        if self.sampling.tile is not None:  # what was asked for, down to a multiple of what the network takes
            settings["tile"] = self.tile
        about = input_record(volume)
        # The input's hash: another scan restored under the same DICOM template is another image.
        derivation = Derivation(
            model_hash=self.model.weight_hash,
            settings={**settings, "seed": seed, "noise_level": used / scale, "input": about["sha256"]},
            description="Denoised by a conditional diffusion model",
        )
        record = {
            "model": self.model.name,
            "weight_hash": self.model.weight_hash,
            "settings": settings,
            "network_calls": self.network_calls(used),
            "seed": seed,
            "normalisation": norm.to_dict(),
            "noise_level": {"value": sigma / scale, "estimated": level is None, "used": used / scale},
            "outside_window_fraction": float(outside.mean()),
            "slices": len(y),
            "seconds": round(time.monotonic() - began, 3),
            "device": self.device.type,
            "warnings": [*self.model.notices, *volume.warnings, *warnings],
            "input": about,
        }
        if contrasts:
            record["contrasts"] = [input_record(contrast) for contrast in contrasts]
        result = Restoration(volume.with_array(volume.arranged(out), derivation=derivation), record)
        if self.sampling.estimate == "mean-of-k" and self.sampling.samples > 1:
            planes, record["uncertainty"] = self._calibrated(spread.reshape(-1, *y.shape[-2:]), used)
            deviation = volume.arranged((planes / scale).reshape(y.shape))
            result.spread = volume.with_array(deviation, derivation=derivation)
        return result

    def _condition(
        self, y: NDArray[Any], contrasts: list[NDArray[Any]], index: list[int], volume: Volume
    ) -> NDArray[Any]:
        """The condition (N, channels, rows, columns) of some slices: their own, their neighbours', other contrasts'."""
        length = len(y) // volume.times
        beside = [[k // length * length + p for p in neighbours_of(k % length, length, self.neighbours)] for k in index]
        further = [y[list(places)] for places in zip(*beside, strict=True)]
        return np.concatenate([y[index], *further, *(images[index, None] for images in contrasts)], 1)

    def _calibrated(self, spread: NDArray[Any], level: float) -> tuple[NDArray[Any], dict[str, Any]]:
        """The calibrated standard deviation where there is one, and what the record says of it."""
        if "calibration" not in self.model.about:
            return spread, {"calibrated": False, "why": "the model holds no calibration (cdm4mi calibrate fits one)"}
        calibration = Calibration.from_dict(self.model.about["calibration"])
        if not calibration.fits(self.sampling):
            return spread, {"calibrated": False, "why": "the calibration is for other sampling settings"}
        said = {
            "calibrated": True,
            "interval": INTERVAL,
            "half_width_in_standard_deviations": HALF_WIDTH,
            "coverage_on_validation_patients": calibration.coverage_after,
        }
        return calibration.apply(spread, level), said

    def restore_slices(
        self,
        y: NDArray[Any],
        level: float,
        *,
        seed: int = 0,
        indices: list[int] | None = None,
        spacing: Spacing = UNKNOWN_SPACING,
        hook: Hook | None = None,
    ) -> NDArray[Any]:
        """Restore slices (N, rows, columns) on [-1, 1] with the noise level ``level`` on that scale.

        y may be (N, channels, rows, columns), the image's own channels first, and has to be for a model of colour, of
        neighbouring slices or of other contrasts; the result then is (N, channels of the image, rows, columns).
        seed: decides the samples; indices: which images these are, for the noise; spacing: millimetres, for models
        told of the acquisition; hook: receives every intermediate state of the first sample.
        """
        return self.restore_moments(y, level, seed=seed, indices=indices, spacing=spacing, hook=hook)[0]

    @torch.no_grad()
    def restore_moments(
        self,
        y: NDArray[Any],
        level: float,
        *,
        seed: int = 0,
        indices: list[int] | None = None,
        spacing: Spacing = UNKNOWN_SPACING,
        zero: float = -1.0,
        hook: Hook | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and standard deviation (0 for one) of the estimates of each slice.

        Of K samples, every second one has the noise of the one before it, negated (antithetic variates, Hammersley and
        Morton 1956): each is a sample as good as any, and their mean is nearer to the posterior's than that of
        independent ones. The deviation is a single sample's, unbiased where x0 is linear in the noise.

        zero: what stands for the physical value 0 on [-1, 1], where the bias of magnitudes is. Other arguments as
        ``restore_slices``; both as its result, on [-1, 1]. The deviation is not calibrated.
        """
        plain = y.ndim == 3
        y = y[:, None] if plain else y
        expected = self.channels + self.model.config.further_channels
        if y.shape[1] != expected:
            raise UserError(f"condition: found {y.shape[1]} channel(s), expected {expected} for {self.model.name}")
        condition, rows, columns = self._padded(torch.from_numpy(np.ascontiguousarray(y, np.float32)))
        condition = condition.to(self.device)
        levels = torch.full((len(y),), float(level), device=self.device)
        indices = list(range(len(y))) if indices is None else indices
        names = self.model.config.model.acquisition_vector
        vector = torch.tensor([acquisition_vector(names, float(level), spacing)]) if names else None

        def told(y: Tensor) -> Tensor | None:
            return None if vector is None else vector.to(y.device).expand(len(y), -1)

        def estimate(x_t: Tensor, t: Tensor, known: Tensor, level: Tensor) -> Tensor:
            y, anchor = known[:, : -self.channels], known[:, -self.channels :]  # the windows of both are cut together
            return self.process.estimate(self.network, x_t, t, y, level, told(y), anchor)

        anchor = self._anchor(condition, levels, told)
        if self.process.keep_mean and not self.process.anchored:
            anchor = self.degradation.unbiased(self.process.own(condition), float(level), zero)
        tiled = TiledEstimate(estimate, self.tile, self.sampling.overlap)
        mean, squares, count = torch.zeros_like(anchor), torch.zeros_like(anchor), 0
        for draw in self._draws(tiled, condition, anchor, levels, seed, indices, hook):  # Welford's running moments
            count += 1
            delta = draw - mean
            mean += delta / count
            squares += delta * (draw - mean)
        # the mean of pairs does not vary in the linear case, and takes no degree of freedom away
        spread = (squares / max(1.0, count - count % 2 / count)).sqrt()
        mean, spread = (moment[..., :rows, :columns].cpu() for moment in (mean, spread))
        return (mean[:, 0].numpy(), spread[:, 0].numpy()) if plain else (mean.numpy(), spread.numpy())

    def _anchor(self, y: Tensor, levels: Tensor, told: Callable[[Tensor], Tensor | None]) -> Tensor:
        """What path and parameterization rest on: the regression's mean where there is one, else the noisy image."""
        regression, own = self.model.regression, self.model.process.own(y)
        if regression is None:
            return own
        network = regression.network.to(self.device).eval()

        def mean(_: Tensor, t: Tensor, y: Tensor, level: Tensor) -> Tensor:
            return regression.process.mean(network, y, level, told(y))

        unused = torch.zeros(len(y), dtype=torch.long, device=y.device)
        return TiledEstimate(mean, self.tile, self.sampling.overlap)(own, unused, y, levels)

    def _draws(
        self,
        estimate: TiledEstimate,
        y: Tensor,
        anchor: Tensor,
        levels: Tensor,
        seed: int,
        indices: list[int],
        hook: Hook | None,
    ) -> Iterator[Tensor]:
        """The estimates that are averaged: one call's, one sample, or K samples."""
        process = self.model.process
        known, own = torch.cat([y, anchor], dim=1), process.own(y)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return estimate(x_t, t, known, levels)

        if self.one_call:
            noise = SeededNoise(seed, indices, tuple(own.shape[1:]), self.device)
            if self.prior:
                last = start_time(process.path, float(levels[0]))
                x_start = start_from(process.path, own, levels, last, noise.draw(0))
            else:
                last = process.path.timesteps - 1
                # precond rests on the condition; every other network knows x_t with its noise only
                bare = process.parameterization.name == "precond"
                x_start = process.start(torch.zeros_like(own) if bare else noise.draw(0), anchor, levels)
            x0 = denoise(x_start, torch.full((len(y),), last, device=self.device))
            if hook is not None:
                hook(SamplingState(0, last, x_start, x0))
            yield x0
            return
        times = self.times_for(float(levels[0]))
        for k in range(1 if self.sampling.estimate == "sample" else self.sampling.samples):
            noise = SeededNoise(seed, indices, tuple(own.shape[1:]), self.device, k // 2, negated=k % 2 == 1)
            if self.sampling.start_from == "y":
                x_start = start_from(process.path, own, levels, times[0], noise.draw(0))
            else:
                x_start = process.start(noise.draw(0), anchor, levels, times[0])
            yield sample(
                denoise,
                process.path,
                times,
                self.solver,
                x_start,
                noise=noise.draw,
                y=anchor if process.path.is_bridge else None,
                clip=self.sampling.clip,
                dynamic_threshold=self.sampling.dynamic_threshold,
                hook=hook if k == 0 else None,
            )

    def _padded(self, image: Tensor) -> tuple[Tensor, int, int]:
        """Mirror the lower and right border out to the size that the network needs."""
        rows, columns = image.shape[-2:]
        tall, wide = (-(-n // self.multiple) * self.multiple for n in (rows, columns))
        mode = "reflect" if tall - rows < rows and wide - columns < columns else "replicate"
        return F.pad(image, (0, wide - columns, 0, tall - rows), mode=mode), rows, columns

    def _window(self, volume: Volume) -> Normalisation:
        """The intensity window of training for this scan: patches of integers keep the one range they all have."""
        data = self.model.config.data
        if data.kind == volume.kind == "hdf5" and volume.modality is None:
            return Normalisation(0.0, data.dynamic_range, modality_of(volume))
        return normalisation_for(volume, data.window, data.percentiles)

    def _trained_level(self, sigma: float, norm: Normalisation, warnings: list[str]) -> float:
        """The level told to the model: inside the range of its training, with a warning where it had to be moved."""
        trained = self.model.config.data.noise.deviations((norm.low, norm.high))
        if not self.model.process.conditioned_on_level or trained is None:
            return sigma
        low, high = trained
        scale = 2 / (norm.high - norm.low)
        used = float(np.clip(sigma, low, high))
        if used < sigma * 0.99 or used > sigma * 1.01:
            warnings.append(
                f"noise level {sigma / scale:.4g} is outside the model's training range "
                f"{low / scale:.4g} to {high / scale:.4g} for this window: {used / scale:.4g} is used"
            )
        return used


def measured_level(slices: NDArray[Any]) -> float:
    """Noise level of slices (N, rows, columns): the median of up to 16 of them, spread evenly."""
    return float(np.median([estimate_sigma(s) for s in slices[:: max(1, len(slices) // 16)]]))
