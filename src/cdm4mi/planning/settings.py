"""The configuration that is named on a command line: a file, a preset, or a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cdm4mi.config.load import load_config
from cdm4mi.config.schema import Config
from cdm4mi.data.manifest import is_store


def settings_of(config: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file or a preset (``load_config``), or of the plan of a store."""
    path = Path(config)
    if not is_store(path):
        return load_config(config, overrides)
    from cdm4mi.planning.plan_file import load_plan  # with torch, which a mistake in a file need not wait for

    return load_plan(path, overrides)
