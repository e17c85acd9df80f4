"""Pydantic's findings as one line: where, which field, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from cdm4mi.config import fields
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import plain, shown
from cdm4mi.errors import UserError

Origins = Mapping[fields.Path, tuple[str, str]]
"""For a key of another source or name than the file's own: the file or command line, and its name there."""

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


class _Location(NamedTuple):
    """Where in the schema an error is; an error's location also names the types of a union.

    path: of the key, with the index of an entry of a list of sections ("parts[0]"); section and tag: the class of keys
    that it is one of, and the ``type`` that chose it; annotation: of the key; rest: what follows in the location.
    """

    path: fields.Path
    section: type[BaseModel]
    tag: str
    annotation: Any
    rest: tuple[int | str, ...]

    @property
    def entry(self) -> str:
        """The entry of a list that is meant, as "[1]"."""
        return "".join(f"[{part}]" for part in self.rest if isinstance(part, int))


def one_line(error: ValidationError, where: str, origins: Origins, root: type[BaseModel] = Config) -> str:
    """The first finding, and how many more fields are wrong; ``root`` is the class that was validated."""
    groups: dict[fields.Path, list[tuple[_Location, Any]]] = {}
    for found in error.errors(include_url=False):
        location = _locate(found["loc"], root)
        groups.setdefault(location.path, []).append((location, found))
    # A union reports once for each of its types: that it is no number says nothing about a list with a bad entry, nor
    # that it is none of some names about a number out of its range.
    findings = next(iter(groups.values()))
    deeper = [f for f in findings if not f[1]["type"].endswith("_type") and f[1]["type"] != "literal_error"]
    more = f" (and {len(groups) - 1} more wrong)" if len(groups) > 1 else ""
    return _line(deeper or findings, where, origins, root) + more


def _line(findings: list[tuple[_Location, Any]], where: str, origins: Origins, root: type[BaseModel]) -> str:
    location, first = findings[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        if isinstance(first["input"], dict):  # a section whose ``type`` is none of those that there are
            where, name = _origin((*location.path, "type"), where, origins)
            expected = ", ".join(map(repr, fields.sections(location.annotation)))
            return f"{where}: {name}: found {shown(first['input']['type'])}, expected {expected}"
        first = {**first, "type": "model_type"}
        findings = [(location, first)]
    where, name = _origin(location.path, where, origins)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {name!r}{_hint(location, first['loc'][-1], root)}"
    if first["type"] == "missing":
        return f"{where}: {name}: missing"
    if first["type"] == "value_error":
        return f"{where}: {name}: {first['ctx']['error']}" if name else f"{where}: {first['ctx']['error']}"
    entry = location.entry
    expected = " or ".join(dict.fromkeys(_expected(found) for place, found in findings if place.entry == entry))
    return f"{where}: {name}{entry}: found {shown(first['input'])}, expected {expected}"


def _expected(found: Any) -> str:
    template = EXPECTED.get(found["type"])
    return template.format(**found.get("ctx", {})) if template else found["msg"]


def _hint(location: _Location, key: str, root: type[BaseModel]) -> str:
    """What an unknown key may have been meant to be."""
    siblings = list(location.section.model_fields)
    found = fields.matches(key, fields.table(root))
    elsewhere = [".".join(path) for path in found if path[:-1] != location.path[:-1]]
    if not location.tag:
        return fields.nearest(key, elsewhere[:1] or siblings)
    if found and not elsewhere:  # a key of another type
        return f" of type {location.tag}; known keys: {', '.join(siblings)}"
    return f" of type {location.tag}{fields.nearest(key, elsewhere[:1] or siblings)}"


def _locate(loc: tuple[int | str, ...], root: type[BaseModel]) -> _Location:
    path: fields.Path = ()
    section, tag = root, ""
    annotation: Any = root
    for done, part in enumerate(loc):
        if isinstance(part, int):
            annotation = fields.entry_of(annotation)
            if not fields.sections(annotation):
                return _Location(path, section, tag, annotation, loc[done:])
            path = (*path[:-1], f"{path[-1]}[{part}]")
            continue
        classes = fields.sections(annotation)
        if not classes:
            return _Location(path, section, tag, annotation, loc[done:])
        if "" not in classes:
            annotation = section = classes[part]
            tag = part
            continue
        if classes[""] is not section:
            section, tag = classes[""], ""
        field = section.model_fields.get(part)
        annotation = field.annotation if field else None
        path = (*path, part)
    return _Location(path, section, tag, annotation, ())


def _origin(path: fields.Path, where: str, origins: Origins) -> tuple[str, str]:
    """The source of a key, and its name there."""
    for length in range(len(path), 0, -1):
        key, bracket, index = path[length - 1].partition("[")
        if (found := (*path[: length - 1], key)) in origins:
            source, name = origins[found]
            return source, ".".join((name + bracket + index, *path[length:]))
    return where, ".".join(path)
