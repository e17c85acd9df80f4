"""What is decided of a scan before its first slice is restored: window, noise level, and what the model is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.beside import ContrastSlices
from cdm4mi.errors import UserError
from cdm4mi.inference.calibration import HALF_WIDTH, INTERVAL, UNKNOWN, fits, noise_kind
from cdm4mi.inference.low_frequencies import USUAL
from cdm4mi.inference.planes import levels_along, planes_of, turned
from cdm4mi.inference.record import NoiseLevel, Uncertainty
from cdm4mi.inference.scan import WHITE, Scan, least_value
from cdm4mi.intensity import NO_MAGNITUDES, guess_notice, is_foreign, modality_of, window_for
from cdm4mi.io import Derivation, Volume, input_record
from cdm4mi.measure.noise_level import SLICES, NoiseEstimate, estimate_noise
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.noise_range import OTHER_MODALITY, NoiseRange
from cdm4mi.models.process import ConditionalProcess
from cdm4mi.window import IntensityWindow


@dataclass(frozen=True)
class ScanPreparation:
    """What scans are measured and checked for, for one model and sampling.

    process: the model's, as it is run; least: pixels along a side that the network needs; settings: the sampling
    section as it is carried out for noise of a standard deviation on [-1, 1], in so many planes
    (``SliceRestorer.settings``); computed: the device and the number format, whose rounding makes another image.
    """

    model: TrainedModel
    sampling: SamplingConfig
    process: ConditionalProcess
    least: int
    settings: Callable[[float, int], dict[str, Any]]
    computed: dict[str, str]

    def scan(
        self,
        volume: Volume,
        noise: float | None,
        seed: int,
        normalisation: IntensityWindow | None,
        contrasts: Sequence[Volume],
    ) -> Scan:
        """Measure and decide what holds for all slices. Raises UserError for a scan that the model cannot restore."""
        self._check(volume, noise, seed, contrasts)
        images = volume.images()
        rows, columns = images.shape[-2:]
        warnings: list[str] = []
        norm = normalisation or self._window(volume, warnings)
        scale = norm.scale
        if is_foreign(volume) or not NoiseRange.of(self.model.config, norm).suits:
            warnings.append(f"{OTHER_MODALITY}: it may keep noise or lose detail")
        measured, given = None, noise is not None
        spreads = self.sampling.estimate == "mean-of-k" and self.sampling.samples > 1
        keeps = self.sampling.keep_low_frequencies is not None
        # spreads are calibrated by kind of noise
        if noise is None or self.process.texture_channels or spreads or keeps:
            magnitude = norm.modality not in NO_MAGNITUDES
            measured = estimate_noise(images.reshape(-1, rows, columns), volume.padding, magnitude)
            warnings += self._correlation_warning(measured, norm)
            noise = measured.sigma if noise is None else noise
        # of many time points too few slices are looked at to tell them apart
        by_slice = None if given or measured is None or volume.times > 1 else measured.by_slice
        levels = np.full(images.shape[:2], float(noise)) if by_slice is None else by_slice.reshape(images.shape[:2])
        sigma = _rms(levels, axis=1) * scale  # a slice of several channels has one level
        used, quiet = self._told(sigma, norm, warnings)
        relative = None
        if self.model.config.data.level_map_share > 0 and measured is not None and not given:
            relative = measured.relative_map
        typical = float(_rms(used))
        data = self.model.config.data
        beside = [ContrastSlices(c, volume, data, f"`contrasts` {n}") for n, c in enumerate(contrasts, 1)]
        planes = self.planes(volume)
        about, settings = input_record(volume), self.settings(typical, planes)
        # The input's hash: another scan restored under the same DICOM template is another image.
        derivation = Derivation(
            model_hash=self.model.weight_hash,
            settings={**settings, **self.computed, "seed": seed, "noise_level": typical / scale, "input": about.sha256},
            description="Denoised by a conditional diffusion model",
        )
        key = {
            "version": derivation.version,
            "model": self.model.weight_hash,
            "settings": derivation.settings,
            "input": [about.model_dump(), *(input_record(contrast).model_dump() for contrast in contrasts)],
            "padding": volume.padding is not None,
            "window": [norm.low, norm.high, norm.modality],
            "sigma": sigma.tolist(),
            "given": given,
        }
        kind = None if is_foreign(volume) else norm.modality
        return Scan(
            volume,
            norm,
            seed,
            sigma,
            used,
            quiet,
            WHITE if measured is None else measured.texture,
            measured,
            relative,
            beside,
            least_value(volume, norm),
            self._cutoff(measured, norm, warnings) if keeps and measured is not None else None,
            spreads,
            self._uncertainty(sigma, used, measured, kind, planes) if spreads and measured is not None else None,
            planes,
            # the times follow from the level, which in other planes varies with the map too
            self.sampling.start_from == "y" and (by_slice is not None or (planes > 1 and relative is not None)),
            typical,
            NoiseLevel.of(noise, typical / scale, measured, sigma / scale, given),
            about,
            derivation,
            key,
            warnings,
        )

    def planes(self, volume: Volume) -> int:
        """In how many planes a volume is restored."""
        contrasts, told = len(self.model.config.data.contrasts), self.process.texture_channels > 0
        return planes_of(self.sampling, volume, self.least, contrasts, told)

    def turned(self, scan: Scan, along: str) -> Scan:
        """The scan with its slices along another axis (``planes.turned``): what is decided of it holds, its noise has
        another texture there, and what varied from slice to slice varies in every slice. Low frequencies are not kept.
        """
        volume = turned(scan.volume, along)
        sigma, relative = levels_along(scan.sigma.reshape(volume.times, -1), scan.relative_level, scan.volume, along)
        used, share = self._told(sigma, scan.norm, [])
        texture = scan.texture
        if self.process.texture_channels:
            magnitude, images = texture[2], volume.slices()
            # of a long scan's large images fewer, so that the memory does not grow with its slices
            count = max(1, SLICES * scan.volume.slices()[0].size // images[0].size)
            chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
            padding = None if volume.padding is None else volume.padding.reshape(images.shape)[chosen]
            rows, columns = estimate_noise(images[chosen], padding, magnitude > 0).correlations
            texture = rows, columns, magnitude
        if self.model.config.data.level_map_share == 0:
            relative = None
        return replace(
            scan,
            volume=volume,
            sigma=sigma,
            used=used,
            share=share,
            texture=texture,
            relative_level=relative,
            cutoff=None,
        )

    def _told(
        self, sigma: NDArray[np.float64], norm: IntensityWindow, warnings: list[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Levels of slices as the model is told them, and the share that is taken away of what those take away.

        Quieter than the model knows: in proportion to the power of the noise that there is less is taken away.
        """
        used = self._trained_sigmas(sigma, norm, warnings)
        share = np.minimum(1.0, np.square(np.divide(sigma, used, out=np.ones_like(sigma), where=used > 0)))
        return used, share

    def _check(self, volume: Volume, noise: float | None, seed: int, contrasts: Sequence[Volume]) -> None:
        """Refuse what the model cannot restore: UserError."""
        if seed < 0:
            raise UserError(field="seed", found=seed, expected="a number of at least 0")
        channels, others = self.model.config.model.channels, len(self.model.config.data.contrasts)
        if volume.channels != channels:
            raise UserError(f"scan: found images of {volume.channels} channel(s), expected the {channels} of the model")
        if len(contrasts) != others:
            expected = f"{others} (the training's data.contrasts)"
            raise UserError(field="contrasts", found=f"{len(contrasts)} scan(s)", expected=expected)
        rows, columns = volume.images().shape[-2:]
        if min(rows, columns) < self.least:
            raise UserError(
                f"scan: found slices of {rows} x {columns} pixels, expected at least "
                f"{self.least} x {self.least}, the least that the network sees"
            )
        if noise is not None and not (np.isfinite(noise) and noise >= 0):
            raise UserError(field="noise", found=noise, expected="a number of at least 0")

    def _cutoff(self, measured: NoiseEstimate, norm: IntensityWindow, warnings: list[str]) -> float:
        """Up to which frequency the scan's own stay. UserError where its noise lifts them."""
        if measured.magnitude:
            raise UserError(
                field="keep_low_frequencies",
                found="an MR magnitude, whose noise lifts dark tissue and air (Rician)",
                expected="a scan whose mean the noise leaves as it is",
            )
        if norm.modality == "MR":
            warnings.append("low frequencies are the scan's: so is the bias of a magnitude where its signal is weak")
        asked = self.sampling.keep_low_frequencies
        return asked if isinstance(asked, float) else USUAL

    def _uncertainty(
        self, sigma: NDArray[Any], used: NDArray[Any], measured: NoiseEstimate, modality: str | None, planes: int
    ) -> Uncertainty:
        """Whether the samples' standard deviation is calibrated for noise of this level and kind, and if not, why."""
        calibration, kind = self.model.about.calibration, noise_kind(modality, measured.texture)
        why = None
        if calibration is None:
            why = "the model holds no calibration (cdm4mi calibrate fits one)"
        elif self.sampling.keep_low_frequencies is not None:
            why = "low frequencies are the scan's, with their noise"
        elif planes > 1:
            why = "the calibration is for one plane"
        elif not fits(calibration, self.sampling):
            why = "the calibration is for other sampling settings"
        elif kind not in calibration.kinds:
            known = " or ".join(calibration.kinds) or "no noise"
            why = f"the scan has {kind}, and the calibration is for {known}"
        elif np.any(np.abs(used - sigma) > 0.01 * sigma):
            why = "the noise level is outside the model's training range"
        if calibration is None or why is not None:
            return Uncertainty(calibrated=False, why=why)
        found = Uncertainty(
            calibrated=True,
            kind=kind,
            interval=INTERVAL,
            half_width_in_standard_deviations=HALF_WIDTH,
            coverage=calibration.kinds[kind].coverage,
            measured_on=calibration.kinds[kind].measured_on,
        )
        bound = calibration.scan_bounds.get(modality or UNKNOWN)
        if bound is None or bound.half_width is None or kind not in bound.kinds:
            return found
        of_scans = {
            "scan_share": 1 - bound.alpha,
            "scan_half_width_in_standard_deviations": bound.half_width,
            "region_half_width_in_standard_deviations": bound.region_half_width,
            "scans": bound.scans,
        }
        return found.model_copy(update=of_scans)

    def _window(self, volume: Volume, warnings: list[str]) -> IntensityWindow:
        """The intensity window of training for this scan: patches of integers keep the one range they all have."""
        data = self.model.config.data
        if data.kind == volume.kind == "hdf5" and volume.modality is None:
            return IntensityWindow(0.0, data.dynamic_range, modality_of(volume))
        warnings += guess_notice(volume)
        return window_for(volume, data.window, data.percentiles)

    def _correlation_warning(self, measured: NoiseEstimate, norm: IntensityWindow) -> list[str]:
        """A line where neighbouring pixels of the noise correlate otherwise than in training."""
        trained = NoiseRange.of(self.model.config, norm)
        if trained.correlation is None or measured.sigma == 0 or trained.has_correlation(measured.correlation):
            return []
        low, high = trained.correlation
        expected = f"{low:.2f} to {high:.2f}" if high > low else f"{high:.2f}"
        return [
            f"the noise of neighbouring pixels correlates by {measured.correlation:.2f}, in the model's training by "
            f"{expected}: what is restored may keep noise or lose detail"
        ]

    def _trained_sigmas(
        self, sigma: NDArray[np.float64], norm: IntensityWindow, warnings: list[str]
    ) -> NDArray[np.float64]:
        """The level of each slice told to the model: inside the range of its training, with a warning where moved."""
        trained = NoiseRange.of(self.model.config, norm)
        if not self.model.process.conditioned_on_level or trained.sigma is None:
            return sigma
        used, moved = trained.nearest_sigma(sigma), trained.outside(sigma)
        if moved.any():
            low, high = (f"{value / norm.scale:.4g}" for value in trained.sigma)
            found, told = (_span(values[moved] / norm.scale) for values in (sigma, used))
            message = (
                f"noise level {found} is outside the model's training range {low} to {high} for this window: "
                f"{told} is used"
            )
            if not moved.all():
                message += f" in {moved.sum()} of {len(sigma)} slices"
            quiet = moved & (used > sigma)
            if quiet.any():
                share = _span(np.square(sigma[quiet] / used[quiet]), "%")
                message += f", and {share} of what that takes away is taken away"
            warnings.append(message)
        return used


def _rms(values: NDArray[np.float64], axis: int | None = None) -> NDArray[np.float64]:
    """Root mean square; of equal values exactly theirs."""
    greatest = values.max(axis, keepdims=True)
    relative = np.divide(values, greatest, out=np.zeros_like(values), where=greatest > 0)
    found: NDArray[np.float64] = greatest.squeeze(axis) * np.sqrt(np.square(relative).mean(axis))
    return found


def _span(values: NDArray[np.float64], kind: str = "") -> str:
    """The least and the greatest of some numbers, or the one that both are."""
    least, most = (f"{value:.0%}" if kind == "%" else f"{value:.4g}" for value in (values.min(), values.max()))
    return least if least == most else f"{least} to {most}"
