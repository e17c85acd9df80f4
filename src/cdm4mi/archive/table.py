"""The table of an archive's run: a CSV with a line for each scan, on the disk as soon as the scan has ended."""

from __future__ import annotations

import csv
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from cdm4mi.errors import UserError
from cdm4mi.files import readable, replacing_file, writing

Status = Literal["restored", "kept", "failed", "passed"]
"""kept: an earlier run restored it; passed: it is not one of the scans that are restored."""
_ESCAPED = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\0"})


@dataclass(frozen=True)
class Row:
    """One scan. input: its path as the user has it; output: below the table's folder; message: why it failed or was
    passed over, or the warnings of its record; sigma: of the noise, in ``unit``; seconds: of the restoration;
    verdict: of its trust report, where one was asked for."""

    input: str
    output: str
    status: Status
    message: str = ""
    slices: int | None = None
    sigma: float | None = None
    unit: str = ""
    seconds: float | None = None
    verdict: str = ""

    def line(self) -> list[str]:
        """The cells of its line. Each is one line of text, so that a line of the file is a line of the table."""
        values = (
            "" if value is None else f"{value:g}" if isinstance(value, float) else value for value in astuple(self)
        )
        return [readable(str(value)).translate(_ESCAPED) for value in values]


COLUMNS = [column.name for column in fields(Row)]
_HEAD = ",".join(COLUMNS)


def is_table(path: Path) -> bool:
    """Whether a file is such a table."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == _HEAD
    except OSError:
        return False


class Table:
    """The table in a file, made with its folder where it is missing. An interrupted run's lines stay in it.

    Raises UserError where the file cannot be written, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # a kill may have cut the last line
        if not whole:
            whole = f"{_HEAD}\n".encode()
        elif not is_table(path):
            raise UserError(f"{path}: is not a table of restored scans, expected one, or a new folder")
        if whole != content:
            with replacing_file(path) as temporary:
                temporary.write_bytes(whole)

    def add(self, row: Row) -> None:
        """Add a line, which is on the disk when the call returns."""
        with writing(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row.line())
            file.flush()
            os.fsync(file.fileno())

    def tidy(self) -> None:
        """Keep the last line of each scan, in the order of the inputs.

        A failure does not count where an output of before is there, of which that run's line tells.
        """
        with self.path.open(encoding="utf-8", newline="") as file:
            _, *lines = csv.reader(file)
        last: dict[str, list[str]] = {}
        for line in lines:
            if len(line) == len(COLUMNS):
                source, output, status, *_ = line
                scan = output or source
                if not (status == "failed" and scan in last and (self.path.parent / scan).exists()):
                    last[scan] = line
        with replacing_file(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *sorted(last.values())])
