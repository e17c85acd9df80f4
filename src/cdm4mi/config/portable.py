"""A configuration as it leaves a machine: without the folders that its paths lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import read_file
from cdm4mi.errors import UserError

PATHS = (("data", "paths"), ("data", "contrasts"), ("model", "regression"), ("training", "initial_weights"))
"""The keys that hold a path, or a list of them."""


def portable(config: Config) -> dict[str, Any]:
    """The configuration as plain data for a file that goes from hand to hand: of each path the last part."""
    data = config.model_dump(mode="json")
    for section, key in PATHS:
        data[section][key] = _last(data[section][key])
    return data


def with_paths_of_run(data: dict[str, Any], run: Path) -> dict[str, Any]:
    """Such data with the paths that the config.yaml of a run's folder has for them, where it has them."""
    try:
        written = read_file(run / "config.yaml")
    except UserError:
        return data
    found = {section: dict(data[section]) for section, _ in PATHS if isinstance(data.get(section), Mapping)}
    for section, key in PATHS:
        there = written.get(section) if isinstance(written, Mapping) else None
        value = there.get(key) if isinstance(there, Mapping) else None
        if section in found and isinstance(value, str | list) and _last(value) == found[section].get(key):
            found[section][key] = value
    return {**data, **found}


def _last(value: Any) -> Any:
    if isinstance(value, list):
        return [_last(item) for item in value]
    return Path(value).name if isinstance(value, str) else value
