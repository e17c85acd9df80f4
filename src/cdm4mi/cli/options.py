"""What the command line calls the library's parameters, in the messages that name them."""

from __future__ import annotations

import re

_NAMED_OTHERWISE = {"contrasts": "--contrast", "window": "--range"}
"""Parameter -> option, where the option is not the parameter with its dashes."""


def with_options(text: str) -> str:
    """A message of the library with every `parameter` in backticks called as its option, ``--parameter``."""
    return re.sub(r"`([a-z_]+)`", lambda found: _option(found[1]), text)


def _option(parameter: str) -> str:
    return _NAMED_OTHERWISE.get(parameter, f"--{parameter.replace('_', '-')}")
