"""The exceptions that end a command: what the user can mend, shown as one line and no traceback, and SIGTERM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def counted(number: int, what: str) -> str:
    """ "1 slice", "2 slices": a count in a message; ``what``: one of them."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def amount(size: float) -> str:
    """ "640 KiB", "1.5 GiB": a number of bytes in a message."""
    units = ["GiB", "MiB", "KiB", "bytes"]
    while size >= 1024 and len(units) > 1:
        size, _ = size / 1024, units.pop()
    return f"{size:.{int(size < 10 and units[-1] != 'bytes')}f} {units[-1]}"


class UserError(Exception):
    """Bad input, stated in one line: the file or field, what was found, what was expected.

    Given as a message, or in parts: ``UserError(field="steps", found=0, expected="1 or more")``. A parameter that a
    message names stands in `backticks`, as `steps` does in one made of parts; the command line puts its own word there
    (``--steps``, see ``cdm4mi.cli.options``), prints the line to stderr and exits with ``code``. The message must not
    hold patient data.
    """

    code = 2

    def __init__(self, message: str = "", *, field: str = "", found: object = "", expected: str = "") -> None:
        self.field, self.found, self.expected = field, found, expected
        super().__init__(message or f"`{field}`: found {found}, expected {expected}")


class Refused(UserError):
    """A scan that a model was not trained for, or a restoration that is bad, where the user asked to be strict."""

    code = 3


@contextmanager
def naming(subject: str, name: str) -> Iterator[None]:
    """Within, a message about a subject ("scan: found ...") says the name of the file that it is."""
    try:
        yield
    except UserError as error:
        message = str(error)
        if message.startswith(f"{subject}: "):
            error.args = (name + message.removeprefix(subject),)
        raise


@contextmanager
def in_file(name: str) -> Iterator[None]:
    """Within, every message says the name of the file that it is about."""
    try:
        yield
    except UserError as error:
        error.args = (f"{name}: {error}",)
        raise


class Terminated(SystemExit):
    """SIGTERM, as a scheduler sends it before it kills: ends the program with exit code 143."""

    def __init__(self) -> None:
        super().__init__(143)
