"""A noise from the text of a command or a call: ``rician percent=5 + speckle``, and parameters by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cdm4mi.config import fields
from cdm4mi.config.errors import Origins, one_line
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import read_value, shown
from cdm4mi.degradation import Degradation
from cdm4mi.degradation.registry import SIMULATED
from cdm4mi.errors import UserError

_AT: fields.Path = ("data", "noise")


def noise_from_spec(spec: str, parameters: Mapping[str, Any]) -> Degradation:
    """The noise of one type, or of several joined by ``+``, one after another.

    spec: a type, with ``key=value`` of it where need be. parameters: keys with a number, a pair (least, most), or the
    text of one ("5", "2,10"); each goes to the type that has it, and those that are None to none. Raises UserError: one
    line.
    """
    parts = [_part(text) for text in spec.split("+")]
    for key, value in parameters.items():
        if value is not None:
            _part_with(key, parts)[key] = _value(key, value)
    section = parts[0] if len(parts) == 1 else {"type": "composition", "parts": parts}
    origins: Origins = {(*_AT, key): ("noise", key) for key in section} | {_AT: ("noise", f"type {parts[0]['type']}")}
    try:
        config = Config.model_validate(fields.fit({"data": {"noise": section}}), strict=True)
    except ValidationError as error:
        raise UserError(one_line(error, "noise", origins)) from None
    return config.data.noise


def keys_of(kind: str) -> list[str]:
    """The keys of a type of noise beside ``type``."""
    return [key for key in SIMULATED[kind].model_fields if key != "type"]


def _part(text: str) -> dict[str, Any]:
    name, *settings = text.split() or [""]
    kind = name.replace("-", "_").lower()
    if kind not in SIMULATED:
        raise UserError(f"noise: type: found {shown(name)}, expected one of {', '.join(SIMULATED)}, or several with +")
    part: dict[str, Any] = {"type": kind}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in keys_of(kind):
            keys = ", ".join(keys_of(kind))
            raise UserError(f"noise: found {shown(setting)} after {kind}, expected key=value with a key of {keys}")
        part[key] = _value(key, value)
    return part


def _part_with(key: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The one part that has a key."""
    found = [part for part in parts if key in keys_of(part["type"])]
    names = " + ".join(part["type"] for part in parts)
    if not found:
        expected = dict.fromkeys(k for part in parts for k in keys_of(part["type"]))
        raise UserError(f"noise: found {key}, which {names} does not have, expected {', '.join(expected)}")
    if len(found) > 1:
        example = f"{found[0]['type']} {key}=... + {found[1]['type']} {key}=..."
        raise UserError(f"noise: found {key}, which more than one of {names} has, expected type '{example}'")
    return found[0]


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        pair = "," in value and not value.strip().startswith("[")
        return read_value(f"[{value}]" if pair else value, f"noise: {key}")
    return list(value) if isinstance(value, tuple) else value
