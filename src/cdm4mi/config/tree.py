"""Keys collected from a file and the command line into one nested mapping that remembers where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdm4mi.config.fields import Path
from cdm4mi.errors import UserError

COMMAND_LINE = "command line"


class Tree:
    """``values``: a nested mapping in the own layout. ``origins``: for a moved key, its place and its name there."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = values or {}
        self.origins: dict[Path, tuple[str, str]] = {}

    def add(self, path: Path, value: Any, where: str, name: str) -> None:
        """Place a key of a file; two names for one key in the same file are a mistake."""
        if path in self.origins:
            raise UserError(f"{where}: {name}: also given as {self.origins[path][1]}, expected one of them")
        self.replace(path, value, where, name)

    def replace(self, path: Path, value: Any, where: str, name: str) -> None:
        """Place a key over what is there; a mapping is merged key by key."""
        put(self.values, path, value)
        self.origins[path] = (where, name)


def put(values: dict[str, Any], path: Path, value: Any) -> None:
    """Set a nested key in place, making the mappings on the way."""
    for part in path[:-1]:
        below = values.get(part)
        values[part] = dict(below) if isinstance(below, Mapping) else {}
        values = values[part]
    below = values.get(path[-1])
    if isinstance(value, Mapping) and isinstance(below, Mapping):
        value = {**below, **value}
    values[path[-1]] = value
