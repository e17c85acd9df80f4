"""Fit a model's calibration on its own validation patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdm4mi.config.schema import Config, SamplingConfig
from cdm4mi.data.acquisition import Spacing
from cdm4mi.data.augment import BACKGROUND
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.data.sources import load_patients, with_slices
from cdm4mi.errors import UserError
from cdm4mi.inference.bootstrap import FOREGROUND, repeated
from cdm4mi.inference.calibration import LEAST_IMAGES, UNKNOWN, fit_calibration, noise_kind
from cdm4mi.inference.conformal import regions_of
from cdm4mi.inference.scan import Texture
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models.about import Calibration, TrainingData
from cdm4mi.models.checkpoint import TrainedModel

EVERY, LEAVES = 5, (1, 3)
"""Of so many patches in a row those that are dead leaves, where the training has any."""


class _Plane(NamedTuple):
    """One channel of a patch, as ``fit_calibration`` takes it: arrays (rows, columns)."""

    error: NDArray[Any]
    spread: NDArray[Any]
    repeated: NDArray[Any]
    inside: NDArray[np.bool_]
    level: float
    group: str
    kind: str
    scan: bool
    modality: str
    regions: Mapping[str, NDArray[Any]]


def calibrate(
    model: TrainedModel,
    config: Config | None = None,
    sampling: SamplingConfig | None = None,
    *,
    patches: int = 64,
    unread_slices: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Restore noisy patches of the validation patients and fit a calibration to the errors.

    The patches are varied as those of training are (contrast, resolution, wrong levels), so that intervals are not too
    narrow for what differs from the validation scans. The texture that the network is told is right, as a measured one
    nearly always is: told of a magnitude that is none, it is biased, and intervals would be wide for it. Where the
    training has dead leaves, so have some of the patches: how intervals follow from the bootstrap is seen best between
    images of little and of much detail. Scale and coverage are those of the others.

    config: where the data are (the model's own configuration when None); sampling: how samples are drawn (the model's
    own, as a mean of K); patches: how many, spread evenly over the patients; unread_slices: take also the slices that
    ``data.slice_step`` left out of training patients whose modality no validation patient has; progress: called with
    (done, all). Raises UserError where the patients are not those that the model kept for validation.
    """
    from cdm4mi.training.run import PairData

    config = config or model.config
    sampling = (sampling or model.config.sampling).model_copy(update={"estimate": "mean-of-k"})
    if sampling.samples < 2:
        raise UserError(f"samples: found {sampling.samples}, expected at least 2 for a spread")
    restorer = SliceRestorer(model, sampling)
    data = PairData(config)
    _check_unseen(model, data.summary)
    validation = [patient for source in data.val_pairs.sources for patient in source]
    unread = _unread(model, config, {patient.frame(0).modality for patient in validation}) if unread_slices else []
    patients = [*validation, *unread]
    each = max(1, patches // len(patients))
    planes: list[_Plane] = []
    for number, patient in enumerate(patients):
        frame = patient.frame(0)
        pairs, leaves = (
            PairDataset(
                [patient],
                data.val_pairs.degradation,
                config.model.image_size,
                seed + number,
                least_foreground=max(config.data.foreground, 0.1),
                length=each,
                channels=config.model.channels,
                augment=config.data.augment.model_copy(update={"leaves": share}),
                level_jitter=config.data.level_jitter,
                texture=True,
            )
            for share in (0.0, 1.0)
        )
        for k in range(each):
            real = config.data.augment.leaves == 0 or k % EVERY not in LEAVES
            pair = (pairs if real else leaves)[k]
            sigma = float(pair["sigma"])
            rows, columns, magnitude = pair["texture"].tolist()
            restore = partial(_moments, restorer, sigma, (rows, columns, magnitude), patient.spacing, seed)
            zero = BACKGROUND if magnitude > 0.5 else None
            found = repeated(restore, pair["y"].numpy()[None], sigma, zero, 2 * (number * each + k), seed)
            x0 = pair["x0"].numpy()
            for c, truth in enumerate(x0):
                inside = truth > FOREGROUND
                planes.append(
                    _Plane(
                        error=found.mean[c] - truth,
                        spread=found.spread[c],
                        repeated=found.error[c],
                        inside=inside,
                        level=sigma,
                        group=patient.name,
                        kind=noise_kind(frame.modality, (rows, columns, magnitude)),
                        scan=real,
                        modality=frame.modality or UNKNOWN,
                        regions=regions_of(truth, inside, frame),
                    )
                )
            if progress is not None:
                progress(number * each + k + 1, each * len(patients))
    if max(Counter(plane.kind for plane in planes).values()) < LEAST_IMAGES:
        raise UserError(field="patches", found=patches, expected=f"more: {LEAST_IMAGES} or more of one kind of noise")
    return fit_calibration(
        np.stack([plane.error for plane in planes]),
        np.stack([plane.spread for plane in planes]),
        [plane.level for plane in planes],
        np.stack([plane.inside for plane in planes]),
        [plane.group for plane in planes],
        [plane.kind for plane in planes],
        restorer.sampling,
        np.stack([plane.repeated for plane in planes]),
        trained_on={patient.name for patient in unread},
        scans=[plane.scan for plane in planes],
        modalities=[plane.modality for plane in planes],
        regions=[plane.regions for plane in planes],
    )


def _moments(
    restorer: SliceRestorer,
    sigma: float,
    texture: Texture,
    spacing: Spacing,
    seed: int,
    condition: NDArray[Any],
    number: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and standard deviation of the samples of one patch."""
    return restorer.moments(condition, sigma, seed=seed, indices=[number], spacing=spacing, texture=texture)


def _check_unseen(model: TrainedModel, data: TrainingData) -> None:
    """Intervals fitted on patients of the training would be too narrow."""
    seen = set(model.about.data.patients_train)
    if not seen:
        raise UserError(f"{model.where}: does not say whom it was trained on, expected a checkpoint of cdm4mi train")
    if known := seen & set(data.patients_val):
        raise UserError(
            f"{model.where}: {len(known)} of the validation patients were trained on, "
            "expected others (the data section or the seed is not the one of its training)"
        )


def _unread(model: TrainedModel, config: Config, modalities: set[str | None]) -> list[Patient]:
    """Patients of other modalities, with the slices only that the training left out."""
    every = config.data.model_copy(update={"slice_step": 1})
    read = set(model.about.data.slice_hashes)
    found = []
    for patient in load_patients(every, config.model.image_size, config.seed):
        unread = [k for k, digest in enumerate(patient.hashes) if digest[:8].hex() not in read]
        if unread and patient.frame(0).modality not in modalities:
            found.append(with_slices(patient, unread))
    if not found:
        raise UserError(
            f"{model.where}: found no slices that the training left out of a modality without a validation patient, "
            "expected some (data.slice_step above 1)"
        )
    return found
