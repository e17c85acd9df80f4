"""The parts that a file of nested mappings and lists must have, told apart by their types alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdm4mi.errors import UserError

_NAMES: dict[type, str] = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Tensor: "a tensor",
    type(None): "none",
}


def check_parts(file: Path, name: str, found: Any, like: Any) -> None:
    """Raise UserError where a part is missing or of another type: file, name of the part, found, expected.

    like: a type; a mapping of the keys that must be there to what each is like, others may be; or a list of one, which
    each of at least one item is like.
    """
    kind: Any = like if isinstance(like, type) else type(like)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise UserError(f"{file}: {name}: found {_kind(found)}, expected {_NAMES[kind]}")
    if isinstance(like, dict):
        for key, part in like.items():
            inner = f"{name}.{key}" if name else key
            if key not in found:
                expected = _NAMES[part if isinstance(part, type) else type(part)]
                raise UserError(f"{file}: {inner}: missing, expected {expected}")
            check_parts(file, inner, found[key], part)
    if isinstance(like, list):
        if not found:
            raise UserError(f"{file}: {name}: found an empty list, expected one item or more")
        for number, item in enumerate(found):
            check_parts(file, f"{name}[{number}]", item, like[0])


def check_weights(file: Path, name: str, found: Any) -> None:
    """Raise UserError where ``found`` is no mapping of names to tensors that hold their numbers one by one."""
    check_parts(file, name, found, dict)
    for key, value in found.items():
        if not isinstance(key, str):
            raise UserError(f"{file}: {name}: found {_kind(key)} ({key!r}) as a key, expected names of weights")
        check_parts(file, f"{name}: {key}", value, Tensor)
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"{file}: {name}: {key}: found a tensor of layout {value.layout}, expected a dense one")


def check_fit(file: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise UserError where a file's weights are not those of the network in its configuration, by name and shape."""
    missing, extra = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    if missing or extra:
        what = f"no weight {missing[0]}" if missing else f"an unexpected weight {extra[0]}"
        raise UserError(f"{file}: has {what}, expected those of the network in its configuration")
    for name, value in weights.items():
        if value.shape != (shape := wanted[name].shape):
            raise UserError(f"{file}: {name} has shape {tuple(value.shape)}, expected {tuple(shape)}")


def check_floating(file: Path, name: str, value: Tensor) -> None:
    """Raise UserError where a tensor holds other than floating-point numbers."""
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(f"{file}: {name}: found numbers of type {kind}, expected floating-point numbers")


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), f"a {type(value).__name__}")
