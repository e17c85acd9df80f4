"""Pydantic's findings as one line: where, which field, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cdm4mi.config import fields
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import plain, shown
from cdm4mi.errors import UserError

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


Schema = TypeVar("Schema", bound=BaseModel)


def validated(mapping: Any, where: str, schema: type[Schema]) -> Schema:
    """A mapping as YAML holds it, checked by a schema. Raises UserError: one line that begins with ``where``."""
    raw = plain(mapping, where)
    if not isinstance(raw, dict):
        raise UserError(f"{where}: found {shown(raw)} at the top, expected a mapping of keys to values")
    try:
        return schema.model_validate(fields.fit(raw, schema), strict=True)
    except ValidationError as error:
        raise UserError(one_line(error, where, {}, schema)) from None


def one_line(error: ValidationError, where: str, origins: Origins, root: type[BaseModel] = Config) -> str:
    """The first finding, and how many more fields are wrong; ``root`` is the class that was validated."""
    groups: dict[tuple[str, str], list[Any]] = {}
    places: dict[tuple[str, str], _Place] = {}
    for found in error.errors(include_url=False):
        place = _place(found["loc"], root)
        key = (".".join(place.path), place.inside)
        groups.setdefault(key, []).append(found)
        places.setdefault(key, place)
    key, first = next(iter(groups.items()))
    more = f" (and {len(groups) - 1} more wrong)" if len(groups) > 1 else ""
    return _line(places[key], first, where, origins) + more


def _line(place: _Place, findings: list[Any], where: str, origins: Origins) -> str:
    # A union reports once for each of its types: that it is no number says nothing about a list with a bad entry, nor
    # that it is none of some names about a number out of its range.
    deeper = [f for f in findings if not f["type"].endswith("_type") and f["type"] != "literal_error"]
    findings = deeper or findings
    first = findings[0]
    where, name = _origin(place.path, where, origins)
    name += place.inside
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {name!r}{_hint(place, first['loc'][-1])}"
    if first["type"] == "missing":
        return f"{where}: {name}: missing"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_type(place, first, where, origins)
    if first["type"] == "value_error":
        return f"{where}: {name}: {first['ctx']['error']}" if name else f"{where}: {first['ctx']['error']}"
    index = "".join(f"[{part}]" for part in first["loc"][place.length :] if isinstance(part, int))
    expected = " or ".join(dict.fromkeys(_expected(found) for found in findings))
    return f"{where}: {name}{index}: found {shown(first['input'])}, expected {expected}"


def _hint(place: _Place, key: str) -> str:
    """What an unknown key may have been meant to be."""
    assert place.section is not None
    siblings = list(place.section.model_fields)
    found = fields.matches(key, fields.table(place.root))
    elsewhere = [".".join(path) for path in found if path[:-1] != place.path[:-1]]
    if not place.tag:
        return fields.nearest(key, elsewhere[:1] or siblings)
    if found and not elsewhere:  # a key of another type
        return f" of type {place.tag}; known keys: {', '.join(siblings)}"
    return f" of type {place.tag}{fields.nearest(key, elsewhere[:1] or siblings)}"


def _wrong_type(place: _Place, found: Any, where: str, origins: Origins) -> str:
    """A section whose ``type`` is none of those that there are, or which is no section at all."""
    if not isinstance(found["input"], dict):
        where, name = _origin(place.path, where, origins)
        return f"{where}: {name}{place.inside}: found {shown(found['input'])}, expected a mapping of keys"
    path = place.path if place.inside else (*place.path, "type")
    where, name = _origin(path, where, origins)
    name += f"{place.inside}.type" if place.inside else ""
    known = ", ".join(repr(tag) for tag in fields.sections(place.annotation))
    return f"{where}: {name}: found {shown(found['input']['type'])}, expected {known}"


def _expected(found: Any) -> str:
    template = EXPECTED.get(found["type"])
    return template.format(**found.get("ctx", {})) if template else found["msg"]


@dataclass(frozen=True)
class _Place:
    """Where in the schema an error is: an error's location also names list entries and the types of a union.

    root: the schema. path: of the key in its table. inside: what follows it in a list of sections ("[0].percent").
    annotation: of the key; section and tag: the class of keys that it is one of, and the ``type`` that chose it.
    length: the parts of the location up to here.
    """

    root: type[BaseModel]
    path: fields.Path
    inside: str
    annotation: Any
    section: type[BaseModel] | None
    tag: str
    length: int


def _place(loc: tuple[int | str, ...], root: type[BaseModel]) -> _Place:
    path: fields.Path = ()
    inside, tag, length = "", "", 0
    annotation: Any = root
    section: type[BaseModel] | None = None
    for part in loc:
        if isinstance(part, int):
            annotation = fields.entry_of(annotation)
            if not fields.is_section(annotation):
                break
            inside += f"[{part}]"
        else:
            known = fields.sections(annotation)
            if not known:
                break
            if "" not in known:
                tag = part
                annotation = section = known[part]
            else:
                if known[""] is not section:
                    section, tag = known[""], ""
                field = section.model_fields.get(part)
                annotation = field.annotation if field else None
                path, inside = (path, f"{inside}.{part}") if inside else ((*path, part), "")
        length += 1
    return _Place(root, path, inside, annotation, section, tag, length)


def _origin(path: fields.Path, where: str, origins: Origins) -> tuple[str, str]:
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            place, name = origins[path[:length]]
            return place, ".".join((name, *path[length:]))
    return where, ".".join(path)
