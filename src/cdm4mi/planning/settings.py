"""The configuration that is named on a command line: a file, a preset, a store, or a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cdm4mi.choices import BEST_OF_RUN, SHIPPED
from cdm4mi.config.load import load_config, preset_names
from cdm4mi.config.schema import Config
from cdm4mi.data.manifest import is_store
from cdm4mi.errors import UserError, in_file

MODEL_FILES = (".ckpt", ".safetensors")


def settings_of(config: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file or a preset (``load_config``), of the plan of a store, or to fine-tune a model.

    A model is ``shipped``, a file of weights (``MODEL_FILES``) or a run's folder. Raises UserError as those do, for a
    folder that is none of these, and for a file of a model that cannot be built (``check_model``).
    """
    path = Path(config)
    if is_store(path):
        from cdm4mi.planning.plan_file import load_plan  # with torch, which a mistake in a file need not wait for

        return load_plan(path, overrides)
    is_run = any((path / best).is_file() for best in BEST_OF_RUN)
    if config == SHIPPED or path.suffix in MODEL_FILES or is_run:
        from cdm4mi.planning.fine_tuning import fine_tuning

        return fine_tuning(config, overrides)
    if path.is_dir() and config not in preset_names():
        raise UserError(
            f"{config}: a folder without a store's manifest or {BEST_OF_RUN[0]}, expected a store of prepare, a run, a "
            "YAML file, a preset or a model; scans go into data.paths (paths=FOLDER) or into a store (cdm4mi prepare)"
        )
    settings = load_config(config, overrides)
    from cdm4mi.models.check import check_model  # with torch

    with in_file(config):
        check_model(settings)
    return settings
