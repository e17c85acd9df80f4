"""Options that several commands have, and what the command line calls the library's parameters in messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdm4mi.errors import UserError

if TYPE_CHECKING:
    from cdm4mi.io import Deidentification

_NAMED_OTHERWISE = {"contrasts": "--contrast", "window": "--range", "burned_in": "--keep-burned-in"}
"""Parameter -> option, where the option is not the parameter with its dashes."""

Deidentify = Annotated[
    bool, typer.Option("--deidentify", help="apply the Basic Profile of DICOM PS3.15 to what is written")
]
DeidentifyKey = Annotated[
    Path | None,
    typer.Option(help="a file with a secret, from which the new patient IDs and UIDs follow (default: random)"),
]
KeepBurnedIn = Annotated[
    bool, typer.Option("--keep-burned-in", help="with --deidentify: write images with text in the pixels too")
]


def with_options(text: str) -> str:
    """A message of the library with every `parameter` in backticks called as its option, ``--parameter``."""
    return re.sub(r"`([a-z_]+)`", lambda found: _option(found[1]), text)


def deidentification(asked: bool, key: Path | None, keep_burned_in: bool) -> Deidentification | bool:
    """How to de-identify, by the three options of it; False: not. UserError for those that need another."""
    from cdm4mi.io import Deidentification

    if not asked and (key is not None or keep_burned_in):
        given = "--keep-burned-in" if key is None else "--deidentify-key"
        raise UserError(f"{given}: found without --deidentify, expected both")
    return Deidentification.of_key(key, keep_burned_in) if asked else False


def _option(parameter: str) -> str:
    return _NAMED_OTHERWISE.get(parameter, f"--{parameter.replace('_', '-')}")
