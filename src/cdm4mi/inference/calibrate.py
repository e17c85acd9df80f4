"""Fit a model's calibration on its own validation patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cdm4mi.config.schema import Config, SamplingConfig
from cdm4mi.data.pairs import Pair, PairDataset
from cdm4mi.errors import UserError
from cdm4mi.inference.calibration import fit_calibration
from cdm4mi.inference.restorer import WHITE, Restorer, Texture
from cdm4mi.models.about import Calibration, TrainingData
from cdm4mi.models.checkpoint import TrainedModel

FOREGROUND = -0.9
"""On [-1, 1]: what is above is taken for the patient."""


def calibrate(
    model: TrainedModel,
    config: Config | None = None,
    sampling: SamplingConfig | None = None,
    *,
    patches: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Restore noisy patches of the validation patients and fit a calibration to the errors.

    config: where the data are (the model's own configuration when None); sampling: how samples are drawn (the model's
    own, as a mean of K); patches: how many, spread evenly over the patients; progress: called with (done, all). Raises
    UserError where the patients are not those that the model kept for validation.
    """
    from cdm4mi.training.run import PairData

    config = config or model.config
    sampling = (sampling or model.config.sampling).model_copy(update={"estimate": "mean-of-k"})
    if sampling.samples < 2:
        raise UserError(f"samples: found {sampling.samples}, expected at least 2 for a spread")
    restorer = Restorer(model, sampling)
    data = PairData(config)
    _check_unseen(model, data.summary)
    patients = [patient for source in data.val_pairs.sources for patient in source]
    each = max(1, patches // len(patients))
    errors, spreads, levels, inside, groups = [], [], [], [], []
    for number, patient in enumerate(patients):
        pairs = PairDataset(
            [patient],
            data.val_pairs.degradation,
            config.model.image_size,
            seed + number,
            least_foreground=max(config.data.foreground, 0.1),
            length=each,
            validation=True,
            channels=config.model.channels,
            texture=config.model.texture_channels,
        )
        for k in range(each):
            pair = pairs[k]
            sigma = float(pair["sigma"])
            mean, spread = restorer.restore_moments(
                pair["y"].numpy()[None],
                sigma,
                seed=seed,
                indices=[number * each + k],
                spacing=patient.spacing,
                texture=_texture(pair),
            )
            x0 = pair["x0"].numpy()
            errors.append(mean[0] - x0)
            spreads.append(spread[0])
            levels += [sigma] * len(x0)
            inside.append(x0 > FOREGROUND)
            groups += [patient.name] * len(x0)
            if progress is not None:
                progress(len(errors), each * len(patients))
    return fit_calibration(
        np.concatenate(errors), np.concatenate(spreads), levels, np.concatenate(inside), groups, restorer.sampling
    )


def _texture(pair: Pair) -> Texture:
    """Of the noise of a pair, as far as it is told."""
    if "texture" not in pair:
        return WHITE
    rows, columns, magnitude = pair["texture"].tolist()
    return rows, columns, magnitude


def _check_unseen(model: TrainedModel, data: TrainingData) -> None:
    """Intervals fitted on patients of the training would be too narrow."""
    seen = set(model.about.data.patients_train)
    if not seen:
        raise UserError(f"{model.name}: does not say whom it was trained on, expected a checkpoint of cdm4mi train")
    if known := seen & set(data.patients_val):
        raise UserError(
            f"{model.name}: {len(known)} of the validation patients were trained on, "
            "expected others (the data section or the seed is not the one of its training)"
        )
