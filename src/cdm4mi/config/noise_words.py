"""A noise section from a user's words: ``rician percent=5 + speckle``, and parameters by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cdm4mi.config import fields
from cdm4mi.config.errors import Origins, one_line
from cdm4mi.config.noise import NoiseSection
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import read_value, shown
from cdm4mi.errors import UserError

_AT: fields.Path = ("data", "noise")
_WORDS = ("composition", "identity")
"""Types that a user does not name: several are written with ``+``, and identity makes no noise."""


def noise_from_words(words: str, parameters: Mapping[str, Any]) -> NoiseSection:
    """The noise section of one type, or of several joined by ``+``, one after another.

    words: a type, with its own ``key=value`` after it where need be. parameters: keys with a number, a pair (least,
    most), or text of one ("5", "2,10"); each goes to the type that has it, and those that are None to none. Raises
    UserError: one line.
    """
    parts = [_part(text) for text in words.split("+")]
    for key, value in parameters.items():
        if value is not None:
            _taker(key, parts)[key] = _value(key, value)
    section = parts[0] if len(parts) == 1 else {"type": "composition", "parts": parts}
    origins: Origins = {(*_AT, key): ("noise", key) for key in section} | {_AT: ("noise", f"type {parts[0]['type']}")}
    try:
        config = Config.model_validate(fields.fit({"data": {"noise": section}}), strict=True)
    except ValidationError as error:
        raise UserError(one_line(error, "noise", origins)) from None
    return config.data.noise


def types() -> dict[str, list[str]]:
    """The types that make noise, and the keys of each."""
    known = fields.sections(fields.table()[_AT])
    return {name: [k for k in c.model_fields if k != "type"] for name, c in known.items() if name not in _WORDS}


def _part(text: str) -> dict[str, Any]:
    name, *settings = text.split() or [""]
    kind = name.replace("-", "_").lower()
    if kind not in types():
        raise UserError(f"noise: type: found {shown(name)}, expected one of {', '.join(types())}, or several with +")
    part: dict[str, Any] = {"type": kind}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in types()[kind]:
            keys = ", ".join(types()[kind])
            raise UserError(f"noise: found {shown(setting)} after {kind}, expected key=value with a key of {keys}")
        part[key] = _value(key, value)
    return part


def _taker(key: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The one part that has a key."""
    takers = [part for part in parts if key in types()[part["type"]]]
    names = " + ".join(part["type"] for part in parts)
    if not takers:
        known = list(dict.fromkeys(k for part in parts for k in types()[part["type"]]))
        raise UserError(f"noise: found {key}, which {names} does not have, expected {', '.join(known)}")
    if len(takers) > 1:
        example = f"{takers[0]['type']} {key}=... + {takers[1]['type']} {key}=..."
        raise UserError(f"noise: found {key}, which more than one of {names} has, expected type '{example}'")
    return takers[0]


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        pair = "," in value and not value.strip().startswith("[")
        return read_value(f"[{value}]" if pair else value, f"noise: {key}")
    return list(value) if isinstance(value, tuple) else value
