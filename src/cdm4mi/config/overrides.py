"""Overrides ``key=value`` of the command line: which key is meant, and where its value goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdm4mi.config import fields
from cdm4mi.config.original import FILE_NAMES, RENAMED, RESIZE, bare_names, noise_keys, resize_of
from cdm4mi.config.tree import COMMAND_LINE, Tree, put
from cdm4mi.config.yaml_text import read_value
from cdm4mi.errors import UserError

Pairs = list[tuple[str, Any]]

TARGET_SIZE = ("dataset", "params", "target_size")


def parse(overrides: Sequence[str]) -> Pairs:
    """Keys and values; a value is written as in YAML (``1e05``, ``[1, 2]``, ``true``, ``null``)."""
    pairs = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{COMMAND_LINE}: found {text!r}, expected key=value")
        pairs.append((key, read_value(value, f"{COMMAND_LINE}: {key}")))
    return pairs


def into_file(pairs: Pairs, raw: Mapping[str, Any], block: fields.Path) -> tuple[dict[str, Any], Pairs]:
    """Place the overrides that only a foreign file has a key for into a copy of it; return it and the others.

    Args:
        block: where the block of bare names is in the file.
    """
    copy, others = dict(raw), []
    for key, value in pairs:
        top, *below = key.split(".")
        if below and isinstance(raw.get(top), Mapping) and not fields.matches(key):
            put(copy, (top, *below), value)
        elif key in FILE_NAMES:
            put(copy, (*block, key), value)
        elif key == TARGET_SIZE[-1] and (at := _holder(copy, (*block, *TARGET_SIZE[:-1]))):
            put(copy, (*at, key), value)
        else:
            others.append((key, value))
    return copy, others


def _holder(raw: Mapping[str, Any], path: fields.Path) -> fields.Path | None:
    """The path, where the file has a mapping there."""
    below: Any = raw
    for part in path:
        below = below.get(part) if isinstance(below, Mapping) else None
    return path if isinstance(below, Mapping) and TARGET_SIZE[-1] in below else None


def into_tree(pairs: Pairs, tree: Tree, foreign: bool) -> None:
    """Place overrides in the own layout, over the file's values.

    Args:
        foreign: the file has the names of the original work, so ``image_dir=/x`` is understood too.
    """
    placed = []
    for key, value in pairs:
        path = _path(key, foreign)
        if foreign and key == TARGET_SIZE[-1]:
            placed.append((path, resize_of(value), key))
        elif foreign and key == "noise_type":
            placed += [((*path[:-1], own), item, key) for own, item in noise_keys(value).items()]
        else:
            placed.append((path, value, key))
    for path, value, _ in placed:
        _forget_other_types(tree, path, value)
    for path, value, key in placed:
        tree.replace(path, value, COMMAND_LINE, key)


def _path(key: str, foreign: bool) -> fields.Path:
    if foreign and key in RENAMED:
        return RENAMED[key]
    if foreign and key == TARGET_SIZE[-1]:
        return RESIZE
    return the_one(key, fields.matches(key), foreign)


def _forget_other_types(tree: Tree, path: fields.Path, value: Any) -> None:
    """Another ``type`` for a section takes the file's keys of the old type out of it."""
    if path[-1] == "type":
        path = path[:-1]
    elif isinstance(value, Mapping) and "type" in value:
        value = value["type"]
    else:
        return
    types = list(fields.sections(fields.table().get(path)))
    below: Any = tree.values
    for part in path:
        below = below.get(part) if isinstance(below, Mapping) else None
    if types and "" not in types and isinstance(below, Mapping) and below.get("type", types[0]) != value:
        put(tree.values, path, None)


def the_one(key: str, found: Sequence[fields.Path], foreign: bool) -> fields.Path:
    """The only path that an override can mean.

    Raises:
        UserError: none or several.
    """
    if len(found) > 1:
        raise UserError(f"{COMMAND_LINE}: {key!r} is ambiguous, expected one of {', '.join(map('.'.join, found))}")
    if found:
        return found[0]
    last = bare_names() if foreign else [path[-1] for path in fields.table()]
    known = [".".join(path) for path in fields.table()] if "." in key else last
    raise UserError(f"{COMMAND_LINE}: unknown key {key!r}{fields.nearest(key, known)}")
