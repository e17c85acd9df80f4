"""Restorer: a volume in, the restored volume out, slice by slice, with a record of what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from cdm4mi.inference.bootstrap import bootstrapped
from cdm4mi.inference.compute import device_named, dtype_named, on_cpu, release_device
from cdm4mi.inference.memory import bytes_of, out_of_memory, pixels_in
from cdm4mi.inference.orientations import averaged
from cdm4mi.inference.overlap import overlapped
from cdm4mi.inference.preparation import ScanPreparation
from cdm4mi.inference.record import DenoiseRecord, KeptFrequencies
from cdm4mi.inference.scan import WHITE, Scan, Slab, Texture
from cdm4mi.inference.slabs import Pace, Slabs, Totals
from cdm4mi.inference.strength import weakened
from cdm4mi.inference.tiling import tiled
from cdm4mi.io import Volume, input_record
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.condition import Condition
from cdm4mi.models.process import Network
from cdm4mi.models.sampler import Hook, Sampler
from cdm4mi.networks import DiffusionWrapper
from cdm4mi.networks.plain import PlainNetwork
from cdm4mi.networks.precision import arrange_for, rounded
from cdm4mi.window import IntensityWindow

PIXELS_AT_A_TIME = 2**18, 2**22
"""Of a batch on a CPU, whose caches hold no more, and on a GPU, which needs as many."""
PROBED = 64
"""Pixels along a side of the image from which the memory that the network takes is measured."""


@dataclass
class Restoration:
    """A restored volume and the record of how it came about (no patient data).

    spread: the standard deviation of the estimate at every voxel, in the scan's units, where the mean of K samples was
    asked for: calibrated where the model holds a calibration for these settings, else that of the samples
    (``record.uncertainty`` says which).
    """

    volume: Volume
    record: DenoiseRecord
    spread: Volume | None = None


OnSlab = Callable[[int, NDArray[Any], NDArray[Any], "NDArray[Any] | None"], None]
"""Called with a finished slab: its first slice; noisy images (n, channels, rows, columns), restored ones and their
standard deviation (None without samples), in the scan's units."""


@dataclass(frozen=True)
class _Estimate:
    """Mean and standard deviation of the samples of a slab, on [-1, 1], and the pace at which its last slices went."""

    mean: NDArray[Any]
    spread: NDArray[Any]
    pace: Pace


class Restorer:
    """Runs a trained model on volumes.

    model: from ``models.checkpoint.load_model``; sampling: how to draw (the model's own by default); device, precision:
    where, and in which number format the network computes (``inference.compute``); memory: bytes that the process may
    take (or a text, "2G"): fewer slices or windows go through the network at a time. None: on a GPU half of what is
    free; on a CPU, whose caches ask for less, some 300 MB for a network such as the shipped one.
    A model without a condition is a prior: the scan, scaled, is x_t at the time whose noise is the scan's, and what is
    drawn from there is a sample of the posterior for white noise. It always starts there (``start_from`` y).
    """

    def __init__(
        self,
        model: TrainedModel,
        sampling: SamplingConfig | None = None,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        memory: int | str | None = None,
    ) -> None:
        self.model = model
        self.channels = model.config.model.channels
        self.neighbours = model.config.data.neighbours
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
        self.preparation = ScanPreparation(model, self.sampling, self.process, self.least, self.settings)
        self.tile = tile // multiple * multiple
        self.memory = None if memory is None else bytes_of(memory)
        self.measured_memory = False

    def restore(
        self,
        volume: Volume,
        *,
        noise: float | None = None,
        seed: int = 0,
        batch: int | None = None,
        normalisation: IntensityWindow | None = None,
        contrasts: Sequence[Volume] = (),
        progress: Callable[[int, int], None] | None = None,
        on_scan: Callable[[Scan], None] | None = None,
        on_slab: OnSlab | None = None,
        slabs: Slabs | None = None,
    ) -> Restoration:
        """Restore every slice of a volume.

        contrasts: the other scans of the patient that the model was trained with, in the order of ``data.contrasts``.
        noise: standard deviation of its noise in physical units; estimated from the volume when None. seed: decides
        every sample, whatever the batch. batch: slices at a time, as many as the device is fast with if None; half as
        many where the memory does not suffice. normalisation: the intensity window, else that of the training
        configuration for this scan. progress: called with (slices done, slices). on_scan: called once, before the
        first slice, with what is decided of the scan. on_slab: called with every slab that this call finishes. slabs:
        where finished slices are kept, which a later call goes on with; in memory if None. ``progress`` and ``on_slab``
        are called in the order of the slices, in a thread of their own.
        """
        began = time.monotonic()
        if batch is not None and batch < 1:
            raise UserError(f"batch: found {batch}, expected a number of at least 1")
        scan = self.preparation.scan(volume, noise, seed, normalisation, contrasts)
        if on_scan is not None:
            on_scan(scan)
        self._fit_into_memory()
        scan = bootstrapped(scan, self.model.about.calibration, self.neighbours, partial(self._moments, scan))
        images, slabs = volume.images(), slabs or Slabs()
        count, pixels = len(images), images[0, 0].size
        at_once = batch or max(1, self.pixels_at_a_time // pixels)
        if scan.one_by_one:
            at_once = 1
        at_once = min(at_once, count)
        key = scan.key | {
            "batch": batch,
            "memory": self.memory,
            "device": self.device.type,
            "precision": str(self.dtype),
            "threads": torch.get_num_threads(),
        }
        pace = slabs.begin(
            key, images.shape, scan.spreads, Pace(slab=at_once, slices=at_once, pixels=self.pixels_at_a_time)
        )
        self.pixels_at_a_time, first, before = pace.pixels, slabs.done, slabs.totals

        def prepare(start: int) -> Slab:
            return scan.slab(list(range(start, min(start + pace.slab, count))), self.neighbours)

        def work(slab: Slab) -> _Estimate:
            nonlocal pace
            estimate, pace = self._estimate(scan, slab, pace)
            return estimate

        def finish(slab: Slab, estimate: _Estimate) -> None:
            restored, spread, put_back = scan.physical(
                slab, estimate.mean, estimate.spread, self.model.about.calibration
            )
            totals = Totals(
                above=slabs.totals.above + slab.above,
                left=slabs.totals.left + int(np.count_nonzero(slab.left)),
                put_back=slabs.totals.put_back + put_back,
                seconds=before.seconds + time.monotonic() - began,
            )
            slabs.put(restored, spread, estimate.pace, totals)
            scan.release()
            if on_slab is not None:
                on_slab(slab.index[0], slab.images, restored, spread)
            if progress is not None:
                progress(slab.index[-1] + 1, count)

        overlapped(range(first, count, pace.slab), prepare, work, finish)
        slabs.close()
        totals = slabs.totals
        deviation = None
        if slabs.spread is not None:
            deviation = volume.with_array(volume.arranged(slabs.spread), derivation=scan.derivation)
        record = DenoiseRecord(
            model=self.model.name,
            weight_hash=self.model.weight_hash,
            settings=self.settings(scan.typical),
            network_calls=self.sampler.network_calls(scan.typical),
            seed=seed,
            normalisation=scan.norm,
            noise_level=scan.noise_level,
            above_window_fraction=totals.above / volume.array.size,
            left_as_found_fraction=totals.left / volume.array.size,
            slices=count,
            seconds=round(before.seconds + time.monotonic() - began, 3),
            device=self.device.type,
            precision=str(self.dtype).removeprefix("torch."),
            warnings=[*self.model.notices, *volume.warnings, *scan.warnings],
            input=scan.about,
            contrasts=[input_record(contrast) for contrast in contrasts] or None,
            uncertainty=scan.uncertainty,
            kept_frequencies=None
            if scan.cutoff is None
            else KeptFrequencies(
                cycles_per_pixel=scan.cutoff, put_back=float(np.sqrt(totals.put_back / volume.array.size))
            ),
        )
        restored = volume.with_array(volume.arranged(slabs.restored), derivation=scan.derivation)
        return Restoration(restored, record, deviation)

    def _moments(
        self,
        scan: Scan,
        condition: NDArray[Any],
        index: list[int],
        numbers: list[int],
        crop: tuple[slice, slice] = np.s_[:, :],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """``restore_moments`` of slices of a scan, or of the same part of each. numbers: of the images, for noise."""
        return self.restore_moments(
            condition,
            scan.used[index],
            seed=scan.seed,
            indices=numbers,
            spacing=scan.volume.spacing,
            zero=float(scan.norm.normalised(np.zeros(()))),
            texture=scan.texture,
            relative_level=None if scan.relative_level is None else scan.relative_level[crop],
            share=scan.share[index],
        )

    def _fit_into_memory(self) -> None:
        """Lower ``pixels_at_a_time`` to what the memory suffices for, once."""
        if self.measured_memory or (self.memory is None and self.device.type == "cpu"):
            return
        side = max(self.least, min(self.tile, PROBED) // self.multiple * self.multiple)
        most = pixels_in(self.memory, self.device, partial(self._call_once, side), side**2, self.tile**2)
        self.pixels_at_a_time, self.measured_memory = min(self.pixels_at_a_time, most), True

    @torch.inference_mode()
    def _call_once(self, side: int) -> Tensor:
        """What the network makes of an empty image of side x side pixels."""
        empty = torch.zeros(1, self.channels + self.model.config.further_channels, side, side, device=self.device)
        cond = self._condition(empty, np.full(1, 0.1), UNKNOWN_SPACING, -1.0, WHITE)
        last = torch.full((1,), self.process.path.timesteps - 1, device=self.device)
        return self.process.denoiser(self._precise(self.network), cond)(self.process.noisy_image(cond.y), last)

    def _estimate(self, scan: Scan, slab: Slab, pace: Pace) -> tuple[_Estimate, Pace]:
        """Run the network on a slab, on half as many slices or windows at a time whenever the memory does not suffice.

        Returns the pace that was kept to at the end. Raises UserError where the memory is too small for one window.
        """
        means: list[NDArray[Any]] = []
        spreads: list[NDArray[Any]] = []
        first = 0
        while first < len(slab.index):
            part = slice(first, first + pace.slices)
            index = slab.index[part]
            try:
                mean, spread = self._moments(scan, slab.condition[part], index, index)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                pace = self._slower(pace)
            else:
                means.append(mean)
                spreads.append(spread)
                first += len(index)
                continue
            release_device(self.device)  # after the error, which holds what was computed
        return _Estimate(np.concatenate(means), np.concatenate(spreads), pace), pace

    def _slower(self, pace: Pace) -> Pace:
        """The next lower pace, at which the network then runs. Raises UserError for the lowest."""
        window = self.tile**2
        if pace.slices == 1 and pace.pixels <= window:
            expected = f"a smaller `tile` than {self.tile}, or more memory"
            raise UserError(f"the memory does not suffice for one window of the network, expected {expected}")
        self.pixels_at_a_time = max(window, pace.pixels // 2)
        return Pace(slab=pace.slab, slices=max(1, pace.slices // 2), pixels=self.pixels_at_a_time)

    def settings(self, sigma: float) -> dict[str, Any]:
        """The sampling section as it is carried out for noise of standard deviation ``sigma`` on [-1, 1]."""
        settings = self.sampling.model_dump(mode="json") | {"steps": len(self.sampler.times(sigma))}
        if self.sampling.keep_low_frequencies is None:  # records and identifiers of other restorations do not name it
            del settings["keep_low_frequencies"]
        if self.sampling.tile is not None:  # what was asked for, down to a multiple of what the network takes
            settings["tile"] = self.tile
        return settings

    def restore_slices(
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
        return self.restore_moments(y, sigma, seed=seed, indices=indices, spacing=spacing, hook=hook)[0]

    @torch.inference_mode()
    def restore_moments(
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
        all if None. Other arguments as ``restore_slices``; both as its result, on [-1, 1].
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
