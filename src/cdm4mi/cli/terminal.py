"""What goes to the terminal: text without the control characters that a header or a file name may hold."""

from __future__ import annotations

import logging
import re

import typer

from cdm4mi.cli.options import with_options
from cdm4mi.files import readable

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All that moves a cursor, rings, colours or turns the direction of writing; not tab and newline."""


def printable(text: str) -> str:
    """The text with every control character, and what is no character, as an escape: ``\\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), readable(text))


def echo(text: str = "", err: bool = False) -> None:
    """Print a line to stdout, or to stderr. The one way in which commands print."""
    typer.echo(printable(text), err=err)


class Formatter(logging.Formatter):
    """Log lines as a command prints its own: printable, with the options' names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(with_options(super().format(record)))
