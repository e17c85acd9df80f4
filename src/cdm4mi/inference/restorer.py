"""Restorer: a volume in, the restored volume out, slice by slice and plane by plane, with a record of what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.inference.bootstrap import bootstrapped
from cdm4mi.inference.compute import release_device
from cdm4mi.inference.memory import bytes_of, out_of_memory, pixels_in
from cdm4mi.inference.overlap import overlapped
from cdm4mi.inference.planes import FURTHER_AXES, Plane, mean_of_planes, shape_along
from cdm4mi.inference.preparation import ScanPreparation
from cdm4mi.inference.record import DenoiseRecord, KeptFrequencies
from cdm4mi.inference.scan import Scan, Slab
from cdm4mi.inference.slabs import Pace, Slabs, Totals
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.io import Volume, input_record
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.window import IntensityWindow

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


class _Seconds:
    """Seconds spent on slabs: those of earlier runs, and those since."""

    def __init__(self, slabs: Slabs) -> None:
        self.before, self.since = slabs.totals.seconds, time.monotonic()

    def __call__(self) -> float:
        return self.before + time.monotonic() - self.since


class _Progress:
    """Calls ``progress`` with the slices that are done, of all planes; done: of the planes that are finished."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def advance(self, slab: Slab) -> None:
        if self.progress is not None:
            self.progress(self.done + slab.index[-1] + 1, self.total)


class Restorer:
    """Runs a trained model on volumes.

    model, sampling, device, precision: as ``SliceRestorer``, which restores the slices. memory: bytes that the process
    may take (or a text, "2G"): fewer slices or windows go through the network at a time. None: on a GPU half of what is
    free; on a CPU, whose caches ask for less, some 300 MB for a network such as the shipped one.
    """

    def __init__(
        self,
        model: TrainedModel,
        sampling: SamplingConfig | None = None,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        memory: int | str | None = None,
    ) -> None:
        self.model, self.memory = model, None if memory is None else bytes_of(memory)
        self.slices = SliceRestorer(model, sampling, device, precision)
        self.neighbours = model.config.data.neighbours
        self.preparation = ScanPreparation(
            model,
            self.slices.sampling,
            self.slices.process,
            self.slices.least,
            self.slices.settings,
            {"device": self.slices.device.type, "precision": str(self.slices.dtype)},
        )
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
        """Restore every slice of a volume, or, in three planes (``sampling.planes``), those along its rows and columns
        too, for the mean of the three.

        contrasts: the other scans of the patient that the model was trained with, in the order of ``data.contrasts``.
        noise: standard deviation of its noise in physical units; estimated from the volume when None. seed: decides
        every sample, whatever the batch. batch: slices at a time, as many as the device is fast with if None; half as
        many where the memory does not suffice. normalisation: the intensity window, else that of the training
        configuration for this scan. progress: called with (slices done, slices), of all planes. on_scan: called once,
        before the first slice, with what is decided of the scan. on_slab: called with every slab that this call
        finishes. slabs: where finished slices are kept, which a later call goes on with; in memory if None.
        ``progress`` and ``on_slab`` are called in the order of the slices, in a thread of their own.
        """
        if batch is not None and batch < 1:
            raise UserError(field="batch", found=batch, expected="a number of at least 1")
        scan = self.preparation.scan(volume, noise, seed, normalisation, contrasts)
        if on_scan is not None:
            on_scan(scan)
        self._fit_into_memory()
        scan = bootstrapped(scan, self.model.about.calibration, self.neighbours, partial(self._moments, scan))
        images, slabs = volume.images(), slabs or Slabs()
        count, options = len(images), {"batch": batch, "memory": self.memory, "threads": torch.get_num_threads()}
        done = _Progress(progress, count + sum(shape_along(volume, along)[0] for along in FURTHER_AXES[scan.planes]))
        planes = [self._plane(scan, along, slabs.part(along), options, done) for along in FURTHER_AXES[scan.planes]]
        pace = self._begin(scan, slabs, images.shape, options)
        seconds = _Seconds(slabs)

        def finish(slab: Slab, estimate: _Estimate) -> None:
            mean, spread = mean_of_planes(estimate.mean, estimate.spread, planes, slab.index)
            restored, deviation, put_back = scan.physical(slab, mean, spread, self.model.about.calibration)
            totals = Totals(
                above=slabs.totals.above + slab.above,
                left=slabs.totals.left + int(np.count_nonzero(slab.left)),
                put_back=slabs.totals.put_back + put_back,
                seconds=seconds(),
            )
            slabs.put(restored, deviation, estimate.pace, totals)
            scan.release()
            for plane in planes:
                plane.release()
            if on_slab is not None:
                on_slab(slab.index[0], slab.images, restored, deviation)
            done.advance(slab)

        self._go_through(scan, slabs, pace, finish)
        slabs.close()
        totals = slabs.totals
        deviation = None
        if slabs.spread is not None:
            deviation = volume.with_array(volume.arranged(slabs.spread), derivation=scan.derivation)
        record = DenoiseRecord(
            model=self.model.name,
            weight_hash=self.model.weight_hash,
            settings=self.slices.settings(scan.typical, scan.planes),
            network_calls=scan.planes * self.slices.sampler.network_calls(scan.typical),
            seed=seed,
            normalisation=scan.norm,
            noise_level=scan.noise_level,
            above_window_fraction=totals.above / volume.array.size,
            left_as_found_fraction=totals.left / volume.array.size,
            slices=count,
            seconds=round(slabs.seconds, 3),
            device=self.slices.device.type,
            precision=str(self.slices.dtype).removeprefix("torch."),
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

    def _plane(self, scan: Scan, along: str, slabs: Slabs, options: dict[str, Any], progress: _Progress) -> Plane:
        """Estimates of a volume's slices along another axis. slabs: where they are kept."""
        shape = shape_along(scan.volume, along)
        pace = self._begin(scan, slabs, shape, options | {"along": along})
        if slabs.done < shape[0]:
            turned, seconds = self.preparation.turned(scan, along), _Seconds(slabs)

            def finish(slab: Slab, estimate: _Estimate) -> None:
                spread = estimate.spread if scan.spreads else None
                slabs.put(estimate.mean, spread, estimate.pace, Totals(seconds=seconds()))
                turned.release()
                progress.advance(slab)

            self._go_through(turned, slabs, pace, finish)
        progress.done += shape[0]
        return Plane(scan.volume, along, slabs.restored, slabs.spread)

    def _begin(self, scan: Scan, slabs: Slabs, shape: tuple[int, ...], options: dict[str, Any]) -> Pace:
        """Make room for images of a shape (N, channels, rows, columns), or go on with those that are there, at their
        pace, which is returned. options: what the rounding follows from beside ``scan.key``."""
        at_once = options["batch"] or max(1, self.slices.pixels_at_a_time // (shape[2] * shape[3]))
        at_once = 1 if scan.one_by_one else min(at_once, shape[0])
        pace = Pace(slab=at_once, slices=at_once, pixels=self.slices.pixels_at_a_time)
        pace = slabs.begin(scan.key | options, shape, scan.spreads, pace)
        self.slices.pixels_at_a_time = pace.pixels
        return pace

    def _go_through(self, scan: Scan, slabs: Slabs, pace: Pace, finish: Callable[[Slab, _Estimate], None]) -> None:
        """Estimate the slices that are not in ``slabs`` yet, slab by slab, and call ``finish`` with each in order."""
        count = len(scan.volume.images())

        def prepare(start: int) -> Slab:
            return scan.slab(list(range(start, min(start + pace.slab, count))), self.neighbours)

        def work(slab: Slab) -> _Estimate:
            nonlocal pace
            estimate, pace = self._estimate(scan, slab, pace)
            return estimate

        overlapped(range(slabs.done, count, pace.slab), prepare, work, finish)

    def _moments(
        self,
        scan: Scan,
        condition: NDArray[Any],
        index: list[int],
        numbers: list[int],
        crop: tuple[slice, slice] = np.s_[:, :],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """``SliceRestorer.moments`` of slices of a scan, or of a part of each. numbers: of the images, for noise."""
        return self.slices.moments(
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
        if self.measured_memory or (self.memory is None and self.slices.device.type == "cpu"):
            return
        slices = self.slices
        side = max(slices.least, min(slices.tile, PROBED) // slices.multiple * slices.multiple)
        most = pixels_in(self.memory, slices.device, partial(slices.call_once, side), side**2, slices.tile**2)
        slices.pixels_at_a_time, self.measured_memory = min(slices.pixels_at_a_time, most), True

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
            release_device(self.slices.device)  # after the error, which holds what was computed
        return _Estimate(np.concatenate(means), np.concatenate(spreads), pace), pace

    def _slower(self, pace: Pace) -> Pace:
        """The next lower pace, at which the network then runs. Raises UserError for the lowest."""
        window = self.slices.tile**2
        if pace.slices == 1 and pace.pixels <= window:
            expected = f"a smaller `tile` than {self.slices.tile}, or more memory"
            raise UserError(f"the memory does not suffice for one window of the network, expected {expected}")
        self.slices.pixels_at_a_time = max(window, pace.pixels // 2)
        return Pace(slab=pace.slab, slices=max(1, pace.slices // 2), pixels=self.slices.pixels_at_a_time)
