"""The one exception that means "the user can mend this": shown as one line, never as a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable


class UserError(Exception):
    """Bad input, stated in one line: the file or field, what was found, what was expected.

    Given as a message, or in parts: ``UserError(field="steps", found=0, expected="1 or more")``. A parameter that a
    text names stands in `backticks`, so that each user reads the word of the interface in use: ``steps`` in Python,
    ``--steps`` on the command line, which prints ``text`` to stderr and exits with code 2 (see ``cdm4mi.cli.main``).
    The message must not hold patient data.
    """

    def __init__(self, message: str = "", *, field: str = "", found: object = "", expected: str = "") -> None:
        self.field, self.found, self.expected = field, found, expected
        super().__init__(message or f"`{field}`: found {found}, expected {expected}")

    def __str__(self) -> str:
        return self.text()

    def text(self, name_of: Callable[[str], str] = str) -> str:
        """The line, each parameter in it called ``name_of(parameter)``."""
        return call_parameters(self.args[0], name_of)


def call_parameters(text: str, name_of: Callable[[str], str] = str) -> str:
    """A text with each `parameter` in backticks called ``name_of(parameter)``, by default as in Python."""
    return re.sub(r"`(\w+)`", lambda match: name_of(match[1]), text)
