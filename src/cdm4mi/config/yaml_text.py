"""YAML in, plain values out: duplicate keys, tags, interpolations and numbers that are none are refused in one line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cdm4mi.errors import UserError

NO_INTERPOLATION = "interpolations are never followed"
LARGEST = 2**20
"""Bytes. Custom betas for 10 000 steps fit; a scan given by mistake does not."""
_FROM_BYTES = {0xDC00 + byte: 0x10DC00 + byte for byte in range(0x80, 0x100)}
_TO_BYTES = {code: byte for byte, code in _FROM_BYTES.items()}


def yaml_text(text: str) -> str:
    """The text with the bytes of file names that are no UTF-8, which YAML cannot hold, as characters of private use.

    ``plain`` turns them back: U+10DC80 to U+10DCFF into what Python has for such bytes, U+DC80 to U+DCFF.
    """
    return text.translate(_FROM_BYTES)


def read_file(path: Path) -> Any:
    """What a YAML file holds, as it stands: ``plain`` says whether it may be used.

    Raises:
        UserError: file unreadable, not text, not YAML, or empty.
    """
    where = str(path)
    try:
        if path.is_dir():
            raise UserError(f"{where}: found a folder, expected a YAML file")
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(f"{where}: found {size} bytes, expected a YAML file of at most {LARGEST}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where}: found a binary file, expected YAML text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    top = _parsed(text, where)
    if top is None:
        raise UserError(f"{where}: the file is empty, expected a mapping of keys to values")
    return top


def read_value(text: str, where: str) -> Any:
    """One value in YAML syntax, such as the right side of an override: ``1e05``, ``[1, 2]``, ``null``."""
    return plain(_parsed(text, where), where)


def plain(value: Any, where: str, field: str = "") -> Any:
    """A copy of ``value`` made of dicts with text keys, lists, text, finite numbers, booleans and nulls only.

    Raises:
        UserError: anything else. An interpolation ``${...}`` could read the environment, so none is followed.
    """
    at = f"{where}: {field}" if field else where
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{at}: found the key {shown(key)}, expected keys that are text")
        return {key: plain(item, where, f"{field}.{key}" if field else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where, f"{field}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        if "${" in value:
            raise UserError(f"{at}: found {shown(value)}, expected a plain value: {NO_INTERPOLATION}")
        if value == "???":
            raise UserError(f"{at}: found ???, expected a value")
        return value.translate(_TO_BYTES)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{at}: found {value}, expected a finite number")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UserError(
        f"{at}: found a {type(value).__name__}, expected a number, text, true, false, null, list or mapping"
    )


def shown(value: Any) -> str:
    """A value as a message shows it: in YAML's words, on one line, short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    text = f"[{', '.join(map(shown, value))}]" if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parsed(text: str, where: str) -> Any:
    """The value of a YAML text: OmegaConf refuses duplicate keys and reads ``1e05`` as a number, plain YAML does not.

    The text is given as the value of a key, since OmegaConf takes a lone text at the top for a key without a value.
    """
    try:
        holder = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={yaml_text(text)}"]), resolve=False)
        return cast(dict[str, Any], holder)["value"]
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax_error(error, text, where)) from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML text: {str(error).splitlines()[0]}") from None
    except OmegaConfBaseException as error:
        if "${" in text:
            raise UserError(f"{where}: found ${{...}}, expected plain values: {NO_INTERPOLATION}") from None
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{where}: cannot be read as YAML: {str(error).splitlines()[0]}") from None


def _syntax_error(error: yaml.MarkedYAMLError, text: str, where: str) -> str:
    number = error.problem_mark.line + 1 if error.problem_mark else 1
    problem = (error.problem or error.context or "no more is known").split(". ")[0]
    at = f"{where}: line {number}" if "\n" in text.strip() else where
    if duplicate := re.fullmatch(r"found duplicate key (.+)", problem):
        return f"{at}: duplicate key {duplicate[1]!r}, expected each key once"
    lines = text.splitlines()
    line = lines[number - 1] if number <= len(lines) else ""
    if "\t" in line:
        return f"{at}: found a tab, expected spaces"
    if "${" in line:
        return f"{at}: found ${{...}}, expected plain values: {NO_INTERPOLATION}"
    return f"{at}: not YAML: {problem}"
