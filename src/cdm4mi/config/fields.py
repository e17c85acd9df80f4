"""The schema as a table of dotted keys: finding a key by a part of its name, and fitting YAML values to its type."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from cdm4mi.config.schema import Config
from cdm4mi.errors import UserError

Path = tuple[str, ...]


@functools.cache
def table(model: type[BaseModel] = Config, prefix: Path = ()) -> dict[Path, Any]:
    """Every key of the schema, sections too: its path from the top and its type annotation."""
    found: dict[Path, Any] = {}
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        found[(*prefix, name)] = annotation
        for section in sections(annotation).values():
            found.update({path: a for path, a in table(section, (*prefix, name)).items() if path not in found})
    return found


def is_section(annotation: Any) -> bool:
    """Whether a key of this type holds further keys."""
    return bool(sections(annotation))


@functools.cache
def sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The classes of a section's keys by the ``type`` that chooses one; just one class is under "". Else empty."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"": annotation}
    if get_origin(annotation) is Annotated:
        return sections(get_args(annotation)[0])
    members = [get_args(member)[0] for member in _union(annotation) if get_origin(member) is Annotated]
    if not members or not all(isinstance(m, type) and issubclass(m, BaseModel) for m in members):
        return {}
    return {m.model_fields["type"].default: m for m in members}


def entry_of(annotation: Any) -> Any:
    """The type of a list's entries; None for what is no list."""
    return get_args(annotation)[0] if get_origin(annotation) is list else None


def section_of(annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The class that a section's value chooses: the first where it names no type, None where it names no known one."""
    classes = sections(annotation)
    first = next(iter(classes))
    chosen = value.get("type", first) if first else first
    return classes.get(chosen) if isinstance(chosen, str) else None


def matches(key: str, among: Iterable[Path] | None = None) -> list[Path]:
    """Paths that a key can mean: the whole dotted path, or else every path that ends with it.

    Of several, one in ``model`` goes first (``betas`` is the schedule's, not the optimizer's).
    """
    paths = table() if among is None else among
    parts = tuple(key.split("."))
    if parts in paths:
        return [parts]
    ends = [path for path in paths if path[-len(parts) :] == parts]
    in_model = [path for path in ends if path[0] == "model"]
    return in_model if len(in_model) == 1 else ends


def find(key: str, where: str, further: Iterable[str] = (), among: Iterable[Path] | None = None) -> Path:
    """The only path that a key can mean.

    Args:
        where: what messages call the source of the key.
        further: names that may be meant beside those of the schema, for a misspelt one.
        among: the paths that it may mean; all of the schema's where None.

    Raises:
        UserError: it means none or several.
    """
    paths = list(table() if among is None else among)
    found = matches(key, paths)
    if len(found) > 1:
        raise UserError(f"{where}: {key!r} is ambiguous, expected one of {', '.join(map('.'.join, found))}")
    if not found:
        names = [".".join(path) for path in paths] if "." in key else [*(path[-1] for path in paths), *further]
        raise UserError(f"{where}: unknown key {key!r}{nearest(key, names)}")
    return found[0]


def nearest(key: str, expected: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest known one, or all of a short list."""
    names = list(dict.fromkeys(expected))
    close = names if len(names) == 1 else difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.5)
    if close:
        return f"; the nearest known key is {close[0]!r}"
    return f"; known keys: {', '.join(names)}" if len(names) <= 25 else ""


def fit(value: Any, annotation: Any = Config) -> Any:
    """Fit a value as YAML spells it to the type of its key, without changing what it says.

    A whole float becomes an integer (``1e05``; float keys take integers), an empty section has no keys,
    ``precision: 32`` is the name "32", a null is the name "none" where there is one, and one text is a list of one
    where a list of texts is expected. All else is left for the validation to refuse.
    """
    if is_section(annotation):
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return value
        chosen = section_of(annotation, value)
        fields = chosen.model_fields if chosen else {}
        return {key: fit(item, fields[key].annotation if key in fields else None) for key, item in value.items()}
    if isinstance(value, list):
        if is_section(entry_of(annotation)):
            return [fit(item, entry_of(annotation)) for item in value]
        return [fit(item) if isinstance(item, float) else item for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    names = _names(annotation)
    if value is None and "none" in names:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and str(value) in names:
        return str(value)
    if isinstance(value, str) and list[str] in _union(annotation):
        return [value]
    return value


def _union(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _names(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) is Literal else ()
