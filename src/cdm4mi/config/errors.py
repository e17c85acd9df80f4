"""Pydantic's findings as one line: where, which field, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from cdm4mi.config import fields
from cdm4mi.config.yaml_text import shown

Origins = Mapping[fields.Path, tuple[str, str]]
"""For a key that was not written at its own place: the file or command line it came from, and its name there."""

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (in quotes if it looks like a number)",
    "list_type": "a list",
    "model_type": "a mapping of keys",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "literal_error": "{expected}",
}


def one_line(error: ValidationError, where: str, origins: Origins) -> str:
    """The first finding, and how many more fields are wrong."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for found in error.errors(include_url=False):
        groups.setdefault(_field(found["loc"]), []).append(found)
    path, first = next(iter(groups.items()))
    more = f" (and {len(groups) - 1} more wrong)" if len(groups) > 1 else ""
    return _line(path, first, where, origins) + more


def _line(path: fields.Path, findings: list[Any], where: str, origins: Origins) -> str:
    # A union reports once for each of its types: that it is no number says nothing about a list with a bad entry.
    deeper = [found for found in findings if not found["type"].endswith("_type")]
    findings = deeper or findings
    first = findings[0]
    where, name = _origin(path, where, origins)
    if first["type"] == "extra_forbidden":
        elsewhere = [".".join(key) for key in fields.matches(path[-1])]
        siblings = elsewhere[:1] or [key[-1] for key in fields.table() if key[:-1] == path[:-1]]
        return f"{where}: unknown key {name!r}{fields.nearest(path[-1], siblings)}"
    if first["type"] == "value_error":
        return f"{where}: {name}: {first['ctx']['error']}" if name else f"{where}: {first['ctx']['error']}"
    index = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
    expected = " or ".join(dict.fromkeys(_expected(found) for found in findings))
    return f"{where}: {name}{index}: found {shown(first['input'])}, expected {expected}"


def _expected(found: Any) -> str:
    template = EXPECTED.get(found["type"])
    return template.format(**found.get("ctx", {})) if template else found["msg"]


def _field(loc: tuple[int | str, ...]) -> fields.Path:
    """The path of the key in an error's location, which also names list entries and the types of a union."""
    return tuple(_known(loc))


def _known(loc: tuple[int | str, ...]) -> Iterator[str]:
    annotation: Any = None
    path: fields.Path = ()
    for part in loc:
        if path and not fields.is_section(annotation):
            return
        path = (*path, str(part))
        annotation = fields.table().get(path)
        yield str(part)


def _origin(path: fields.Path, where: str, origins: Origins) -> tuple[str, str]:
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            place, name = origins[path[:length]]
            return place, ".".join((name, *path[length:]))
    return where, ".".join(path)
