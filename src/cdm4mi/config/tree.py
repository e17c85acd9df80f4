"""Keys collected from a file and the command line into one nested mapping that remembers where each came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdm4mi.config import fields
from cdm4mi.config.yaml_text import read_value
from cdm4mi.errors import UserError

COMMAND_LINE = "command line"

Assignment = tuple[fields.Path, Any, str]
"""A key of the schema, its value, and the name that it was given under."""


class Tree:
    """``values``: a nested mapping in the project's layout; ``origins``: source and name of each assigned key."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = values or {}
        self.origins: dict[fields.Path, tuple[str, str]] = {}

    def assign(self, path: fields.Path, value: Any, where: str, name: str) -> None:
        """Put a value over what is there; a mapping is merged key by key."""
        put(self.values, path, value)
        self.origins[path] = (where, name)

    def override(self, line: Sequence[Assignment]) -> None:
        """Assign what the command line says; where it chooses another ``type``, the keys of the old one go."""
        for path, value, _ in line:
            if path[-1] == "type":
                self._choose(path[:-1], value)
            elif isinstance(value, Mapping) and "type" in value:
                self._choose(path, value["type"])
        for path, value, name in line:
            self.assign(path, value, COMMAND_LINE, name)

    def _choose(self, section: fields.Path, kind: Any) -> None:
        """Empty a section whose ``type`` is another one."""
        types = list(fields.sections(fields.table().get(section)))
        below: Any = self.values
        for part in section:
            below = below.get(part) if isinstance(below, Mapping) else None
        if types and "" not in types and isinstance(below, Mapping) and below.get("type", types[0]) != kind:
            put(self.values, section, None)


def put(values: dict[str, Any], path: fields.Path, value: Any) -> None:
    """Set a nested key in place, making the mappings on the way."""
    for part in path[:-1]:
        below = values.get(part)
        values[part] = dict(below) if isinstance(below, Mapping) else {}
        values = values[part]
    below = values.get(path[-1])
    if isinstance(value, Mapping) and isinstance(below, Mapping):
        value = {**below, **value}
    values[path[-1]] = value


def parsed(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of ``key=value``; a value is written as in YAML (``1e05``, ``[1, 2]``, ``true``, ``null``)."""
    pairs = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{COMMAND_LINE}: found {text!r}, expected key=value")
        pairs.append((key, read_value(value, f"{COMMAND_LINE}: {key}")))
    return pairs
