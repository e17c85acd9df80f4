"""What a run that goes on has in common with its checkpoint: the meaning of the weights, the validation patients."""

from __future__ import annotations

import logging
from pathlib import Path

from cdm4mi.config.portable import portable
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import shown
from cdm4mi.data.names import patient_hash
from cdm4mi.errors import UserError, counted
from cdm4mi.models.about import About
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.initial import settings_of_weights

log = logging.getLogger("cdm4mi.training")


def resumed(config: Config, start: Path) -> About:
    """What the checkpoint that a run goes on from says of its model.

    A ``sigma_r`` that the run measured goes into the configuration. Raises UserError where the weights of the
    checkpoint are of another model than the configuration's.
    """
    model = load_model(start)
    if config.model.regression is not None and config.model.sigma_r is None:
        config.model.sigma_r = model.config.model.sigma_r
    own, other = (settings_of_weights(portable(c)) for c in (config, model.config))
    for key in own:
        if own[key] != other[key]:
            raise UserError(
                f"{key}: found {shown(own[key])}, but {start} was trained with {shown(other[key])}, expected the same "
                "with `resume` (another `out` begins a new run)"
            )
    return model.about


def check_split(val_names: list[str], train_names: list[str], earlier: About, start: Path | None) -> None:
    """Refuse a resumed run that validates on patients whom it was trained on; say so where other weights were, before.

    earlier: what is known of the weights that the run begins with, ``start`` the checkpoint that it goes on from.
    """
    seen = set(earlier.data.patients_train)
    moved = [name for name in val_names if patient_hash(name) in seen and name not in train_names]
    if not moved:
        return
    found = f"data: {counted(len(moved), 'validation patient')}, first {moved[0]}"
    if start is not None and earlier.initial_weights is None:
        raise UserError(
            f"{found}, of whom {start} was trained on, expected the split that the run had (data.val_patients names "
            "the validation patients)"
        )
    log.warning("%s, on whom the weights were trained before: val/loss is too low for new patients", found)
