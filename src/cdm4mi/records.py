"""Records that files hold: pydantic models, read with one line for what is damaged or of another program."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cdm4mi.errors import UserError


class Record(BaseModel):
    """Base of what is kept in files: it does not change, and keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """Base of what is a file, or a part of one, of its own; a file without a format is of the first."""

    format: int = Field(1, ge=1, le=1)

    def plain(self) -> dict[str, Any]:
        """As JSON has it, with the format; what is as by default is left out, and inf and nan are null."""
        content: dict[str, Any] = json.loads(self.model_dump_json(exclude_defaults=True))
        return {"format": self.format} | content


Kind = TypeVar("Kind", bound=BaseModel)


def read_record_as(kind: type[Kind], data: Any, where: str, expected: str) -> Kind:
    """A record from plain data, or from the text of JSON (bytes).

    where: the file, for messages; expected: what it should be, in words. Raises UserError: one line that names the
    first field that is wrong.
    """
    try:
        return kind.model_validate_json(data) if isinstance(data, bytes) else kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {field + ': ' if field else ''}{first['msg']}, expected {expected}") from None
