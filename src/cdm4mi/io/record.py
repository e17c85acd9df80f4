"""The JSON record beside an output: what ran, on what, with which result. It holds no patient data."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cdm4mi import __version__
from cdm4mi.files import replacing_file
from cdm4mi.io.arrays import planes
from cdm4mi.io.volume import Volume
from cdm4mi.records import FileRecord, Record

if TYPE_CHECKING:
    from typing_extensions import Self


class InputRecord(Record):
    """Geometry and hash of a scan: no names, identifiers or dates.

    format: of the file that it was read from; sha256: None beside an output that was de-identified.
    """

    format: str | None
    modality: str | None
    units: str | None
    shape: list[int]
    spacing_mm: tuple[float, float, float]
    affine_ras: list[list[float]]
    stored_type: str | None
    sha256: str | None
    warnings: list[str]

    def without_hash(self) -> InputRecord:
        return self.model_copy(update={"sha256": None})


class DatedRecord(FileRecord):
    """A file that says by which version it was written, and when (UTC)."""

    software: Literal["cdm4mi"] = "cdm4mi"
    version: str = __version__
    written: str | None = None

    def write(self, path: Path, **further: str) -> None:
        """Write it as JSON, headed by the software, its version, the time and ``further``."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        head = {"software": self.software, "version": self.version, "written": now, **further}
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(head | self.plain(), indent=2) + "\n", encoding="utf-8")


class OutputRecord(DatedRecord):
    """What the record of every output holds. input: the scan that it was made of."""

    warnings: list[str]
    input: InputRecord

    def deidentified(self) -> Self:
        """The record without what one who has the identified scan would know it by."""
        return self.model_copy(update={"input": self.input.without_hash()})


def record_path(output: str | Path) -> Path:
    """Where the record of an output lies: beside it, under its whole name, as ``scan.nii.gz.cdm4mi.json``."""
    output = Path(output)
    return output.with_name(f"{output.name}.cdm4mi.json")


def write_record(path: str | Path, record: OutputRecord) -> Path:
    """Write the record of the output ``path`` beside it; returns where."""
    target = record_path(path)
    record.write(target)
    return target


def input_record(volume: Volume) -> InputRecord:
    """Geometry and hash of an input for the record of an output."""
    digest = hashlib.sha256()
    for plane in planes(volume.array):
        digest.update(plane.tobytes())
    digest.update(volume.affine.tobytes())
    return InputRecord(
        format=volume.kind,
        modality=volume.modality,
        units=volume.units,
        shape=list(volume.shape),
        spacing_mm=volume.spacing,
        affine_ras=volume.affine.tolist(),
        stored_type=str(volume.source.dtype) if volume.source and volume.source.dtype is not None else None,
        sha256=digest.hexdigest(),
        warnings=list(volume.warnings),
    )
