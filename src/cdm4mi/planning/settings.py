"""The configuration that is named on a command line: a file, a preset, a store, or a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cdm4mi.choices import SHIPPED
from cdm4mi.config.load import load_config
from cdm4mi.config.schema import Config
from cdm4mi.data.manifest import is_store

MODEL_FILES = (".ckpt", ".safetensors")


def settings_of(config: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file or a preset (``load_config``), of the plan of a store, or to fine-tune a model.

    A model is ``shipped`` or a file of weights (``MODEL_FILES``).
    """
    path = Path(config)
    if is_store(path):
        from cdm4mi.planning.plan_file import load_plan  # with torch, which a mistake in a file need not wait for

        return load_plan(path, overrides)
    if config == SHIPPED or path.suffix in MODEL_FILES:
        from cdm4mi.planning.fine_tuning import fine_tuning

        return fine_tuning(config, overrides)
    return load_config(config, overrides)
