"""Records that files hold: pydantic models, read with one line for what is damaged or of another program."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cdm4mi.errors import UserError
from cdm4mi.files import readable


class Record(BaseModel):
    """Base of what is kept in files: it does not change, and keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, data: Any) -> Any:
        """File names that are no UTF-8 as escapes: JSON has no other way to hold them."""
        return {name: _readable(value) for name, value in data.items()} if isinstance(data, dict) else data


class FileRecord(Record):
    """Base of what is a file, or a part of one, of its own; a file without a format is of the first."""

    format: int = Field(1, ge=1, le=1)

    def plain(self) -> dict[str, Any]:
        """As JSON has it, with the format; what is as by default is left out, and inf and nan are null."""
        content: dict[str, Any] = json.loads(self.model_dump_json(exclude_defaults=True))
        return {"format": self.format} | content


def _readable(value: Any) -> Any:
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return readable(value) if isinstance(value, str) else value


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
        if first["loc"] == ("format",) and first["type"] == "less_than_equal":
            found, known = first["input"], first["ctx"]["le"]
            raise UserError(
                f"{where}: format: found {found}, which a newer version of cdm4mi wrote (this one knows {known}), "
                f"expected {expected}"
            ) from None
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {field + ': ' if field else ''}{first['msg']}, expected {expected}") from None
