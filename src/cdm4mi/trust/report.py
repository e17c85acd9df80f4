"""The trust report of one restoration: everything measured, then the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.intensity import NO_MAGNITUDES, foreground_threshold, guess_notice, is_foreign, modality_of, window_for
from cdm4mi.io import InputRecord, Volume, arrays
from cdm4mi.measure.noise_level import NoiseEstimate, estimate_noise
from cdm4mi.models.about import About
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.models.noise_range import CORRELATION_MARGIN, NoiseRange
from cdm4mi.records import read_record_as
from cdm4mi.trust.fidelity import FidelitySums
from cdm4mi.trust.intervals import interval_coverage
from cdm4mi.trust.lesions import lesions_kept
from cdm4mi.trust.record import FoundNoise, ModelRange, Origin, Place, Residual, Trained, TrustReport
from cdm4mi.trust.residual import ResidualSums, ResidualTest, patient_threshold
from cdm4mi.trust.structure import Finding
from cdm4mi.trust.verdict import reasons, verdict_of
from cdm4mi.window import IntensityWindow

SAME_VOXELS = 0.1
"""How far, in voxels, the corners of the two scans may lie apart."""
SAMPLED = 16
"""Slices, evenly spread, that say how bright the patient is."""


def trust_report(
    scan: Volume | str | Path,
    restored: Volume | str | Path,
    *,
    model: TrainedModel | str | Path | None = None,
    record: DenoiseRecord | None = None,
    modality: str | None = None,
) -> TrustReport:
    """Say what was taken away from a scan, and whether to trust what was restored from it.

    Args:
        scan, restored: grey volumes of the same voxels and of one time point, or their paths.
        model: what restored it, to compare the scan with its training; by default the shipped one where the record
            names it.
        record: of the restoration; by default the one beside ``restored``, where that is a path and it is there.
        modality: "CT", "MR" or "PT", where the file does not state it.

    Returns:
        A record of measurements, findings and the verdict, without patient data.

    Raises:
        UserError: for other voxels, colour, several time points, a scan without noise, or a model that did not restore
            it.
    """
    if record is None and not isinstance(restored, Volume):
        record = record_beside(restored)
    scan, restored = (v if isinstance(v, Volume) else io.read(v) for v in (scan, restored))
    if modality is not None:
        scan = replace(scan, modality=modality)
    restored = on_voxels_of(restored, scan)
    comparison = Comparison(scan)
    trained = _model_of(record, model)
    window = record.normalisation if record is not None else _window(scan, trained)
    model_range = None if trained is None else range_of(trained, scan, window, comparison.noise)
    known = None if trained is None else trained.about
    return comparison.report(restored, window, model_range, record, io.input_record(scan), known)


class Comparison:
    """A scan and what is restored of it, compared slice by slice: for ``trust``, and while ``denoise`` is at work.

    Its memory does not grow with the number of slices where ``io.arrays`` may put arrays into files.
    """

    def __init__(self, scan: Volume, noise: NoiseEstimate | None = None) -> None:
        """noise: of the scan, measured when None. Raises UserError for colour, several time points and no noise."""
        _refuse_unlike_one_scan(scan, "scan")
        self.scan, self.kind = scan, modality_of(scan)
        if noise is None:
            noise = estimate_noise(scan.slices(), scan.padding, self.kind not in NO_MAGNITUDES)
        self.noise = noise
        self.unit = scan.units or IntensityWindow(0.0, 1.0, self.kind).unit
        slices, rows, columns = scan.slices().shape
        self._residual = ResidualSums((slices, rows, columns), self.noise, scan.spacing)
        self._fidelity = FidelitySums(slices, self.noise, self.kind)
        self._threshold = _threshold(scan, self.kind)
        self._added = np.zeros(slices, bool)

    def add(self, first: int, y: NDArray[Any], restored: NDArray[Any]) -> None:
        """Add slices (n, rows, columns) from ``first`` on, noisy and restored, in the scan's units."""
        padding = None if self.scan.padding is None else self.scan.padding.reshape(self.scan.slices().shape)
        for k, image, output in zip(range(first, first + len(y)), y, restored, strict=True):
            body = output > self._threshold
            if padding is not None:
                body &= ~padding[k]
            self._residual.add(k, image, output, body)
            self._fidelity.add(k, image, output, body, None if padding is None else padding[k])
            self._added[k] = True
        self._residual.structure.release()

    def report(
        self,
        restored: Volume,
        window: IntensityWindow,
        model: ModelRange | None,
        record: DenoiseRecord | None,
        about: InputRecord,
        known: About | None = None,
    ) -> TrustReport:
        """The report, once every slice was added; those that were not are, from ``restored`` on the scan's voxels.

        window: of intensities; model: where the scan lies in its training; record: of the restoration; about: the scan;
        known: of the model, its lesion test and its calibration.
        """
        scan, noise, unit = self.scan, self.noise, self.unit
        y, output = scan.slices(), restored.slices()
        for k in np.flatnonzero(~self._added):
            self.add(int(k), y[k : k + 1], output[k : k + 1])
            arrays.release(y)
            arrays.release(output)
        test, fidelity = self._residual.test(), self._fidelity.fidelity()
        origin = None if record is None else _origin(record, about.sha256)
        places = [_place(f, scan, self._residual.sigma_at(f.position), window.scale) for f in test.findings]
        found = _found(noise, len(y))
        why = reasons(found, model, origin, test, places, fidelity, unit)
        return TrustReport(
            warnings=[*scan.warnings, *guess_notice(scan)],
            input=about,
            verdict=verdict_of(why),
            reasons=why,
            modality=self.kind,
            unit=unit,
            noise=found,
            model=model,
            lesions=None
            if known is None
            else lesions_kept(known.lesions, noise.sigma, window, 1.0 if origin is None else origin.strength),
            intervals=None if known is None else interval_coverage(known.calibration, self.kind, noise.texture),
            origin=origin,
            residual=_residual(test),
            findings=places,
            fidelity=fidelity,
        )


def record_beside(restored: str | Path) -> DenoiseRecord | None:
    """The record of a restoration beside its output; None where there is none. UserError where it is damaged."""
    path = io.record_path(restored)
    if not path.is_file():
        return None
    return read_record_as(DenoiseRecord, path.read_bytes(), str(path), "the record of a restored scan")


def on_voxels_of(restored: Volume, scan: Volume) -> Volume:
    """The restored scan with axes in the order and direction of the scan's; nothing is interpolated.

    Raises UserError where its voxels are not those of the scan, and for colour and several time points.
    """
    _refuse_unlike_one_scan(scan, "scan")
    _refuse_unlike_one_scan(restored, "restored")
    scan_shape, shape = scan.slices().shape, restored.slices().shape
    if scan_shape == shape and np.allclose(restored.affine, scan.affine, atol=1e-3):
        return restored
    turn = ornt_transform(io_orientation(restored.affine), io_orientation(scan.affine))
    affine = restored.affine @ inv_ornt_aff(turn, shape[::-1])
    array = np.ascontiguousarray(apply_orientation(restored.slices().T, turn).T)
    if array.shape != scan_shape:
        expected, found = (" x ".join(map(str, sizes)) for sizes in (scan_shape, shape))
        raise UserError(f"restored: has {found} voxels, expected the {expected} of the scan")
    ends = np.array([[0, 0, 0, 1], [*(n - 1 for n in scan_shape[::-1]), 1]])
    if np.abs(ends @ (affine - scan.affine).T).max() > SAME_VOXELS * min(scan.spacing):
        raise UserError("restored: lies elsewhere in the patient than the scan (affines differ), expected its voxels")
    return replace(restored, array=array, affine=affine, padding=None)


def _refuse_unlike_one_scan(volume: Volume, name: str) -> None:
    volume.refuse_colour(name)
    if volume.times > 1:
        raise UserError(f"{name}: has {volume.times} time points, expected one")


def _threshold(scan: Volume, kind: str) -> float:
    """The value from which a restored pixel is the patient's: of means that noise hardly moves, in some slices."""
    if kind == "CT":
        return foreground_threshold(np.empty(0), kind)
    slices = scan.slices()
    chosen = np.unique(np.linspace(0, len(slices) - 1, SAMPLED).astype(int))
    return patient_threshold(ndimage.uniform_filter(slices[chosen], (0, 3, 3)))


def _model_of(record: DenoiseRecord | None, model: TrainedModel | str | Path | None) -> TrainedModel | None:
    """The model that was given, or the shipped one where the record names it. UserError for another than restored."""
    if model is None:
        if record is None or not record.model.startswith("shipped:"):
            return None
        shipped = load_model()
        return shipped if shipped.weight_hash == record.weight_hash else None
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    if record is not None and trained.weight_hash != record.weight_hash:
        raise UserError(
            field="model",
            found=f"{trained.name} with weights {trained.weight_hash[:12]}",
            expected=f"{record.model} with weights {record.weight_hash[:12]}, which the record names",
        )
    return trained


def _window(scan: Volume, model: TrainedModel | None) -> IntensityWindow:
    """That of the model's training for this scan, where the model is known; else the usual one."""
    return (
        window_for(scan) if model is None else window_for(scan, model.config.data.window, model.config.data.percentiles)
    )


def range_of(model: TrainedModel, scan: Volume, window: IntensityWindow, noise: NoiseEstimate) -> ModelRange:
    """Where a scan with this noise lies in the noise and the modalities of a model's training."""
    trained = NoiseRange.of(model.config, window)
    sigma = correlation = None
    if trained.sigma is not None:
        low, high = (s / window.scale for s in trained.sigma)
        levels = noise.of_slices(len(scan.slices())) * window.scale
        away = np.abs(levels - trained.nearest_sigma(levels))
        outside = bool(trained.outside(levels).any())
        worst = float(levels[np.argmax(away)]) / window.scale if outside else noise.sigma
        sigma = _trained(worst, low, high, outside)
    if trained.correlation is not None:
        low, high = (float(c) for c in trained.correlation)
        outside = not trained.has_correlation(noise.correlation)
        correlation = _trained(noise.correlation, low - CORRELATION_MARGIN, high + CORRELATION_MARGIN, outside)
    return ModelRange(
        name=model.name,
        weight_hash=model.weight_hash,
        modality=trained.suits and not is_foreign(scan),
        units=not (window.modality == "CT" and scan.kind == "dicom" and scan.units is None),
        sigma=sigma,
        correlation=correlation,
    )


def _trained(found: float, low: float, high: float, outside: bool) -> Trained:
    away = max(low - found, found - high, 0.0) if outside else 0.0
    return Trained(found=found, low=low, high=high, away=away)


def _found(noise: NoiseEstimate, slices: int) -> FoundNoise:
    levels = noise.of_slices(slices)
    least, most = float(levels.min()), float(levels.max())
    return FoundNoise(
        sigma=noise.sigma,
        least=least if least < most else None,
        most=most if least < most else None,
        correlations=noise.correlations,
        magnitude=noise.magnitude,
        varying=noise.varying,
    )


def _origin(record: DenoiseRecord, input_hash: str | None) -> Origin:
    recorded = record.input.sha256
    return Origin(
        same_scan=None if recorded is None else recorded == input_hash,
        model=record.model,
        weight_hash=record.weight_hash,
        sigma=record.noise_level.value,
        strength=float(record.settings.get("strength", 1.0)),
    )


def _place(finding: Finding, scan: Volume, sigma: float, scale: float) -> Place:
    """sigma: of the noise there; scale: of the intensity window."""
    slice_, row, column = finding.position
    right, anterior, superior, _ = scan.slice_affine(slice_) @ [column, row, 0, 1]
    is_contrast = finding.kind == "structure"
    return Place(
        kind=finding.kind,
        position=finding.position,
        position_mm=(float(right), float(anterior), float(superior)),
        score=finding.score,
        change=finding.change,
        change_in_sigma=float(finding.change / sigma) if is_contrast else None,
        change_scaled=finding.change * scale if is_contrast else None,
        size_mm=finding.size,
    )


def _residual(test: ResidualTest) -> Residual:
    return Residual(
        level=test.level,
        bias=test.bias,
        correlations=test.correlations,
        noise_correlations=test.noise_correlations,
        edges=test.edges,
        structure=test.structure,
        contrast=test.contrast,
    )
