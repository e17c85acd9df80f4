"""The JSON record beside an output: what ran, on what, with which result. It holds no patient data."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi import __version__
from cdm4mi.files import replacing_file
from cdm4mi.io.volume import Volume


def record_path(output: str | Path) -> Path:
    """Where the record of an output lies: beside it, under its whole name, as ``scan.nii.gz.cdm4mi.json``."""
    output = Path(output)
    return output.with_name(f"{output.name}.cdm4mi.json")


def write_record(path: str | Path, record: dict[str, Any]) -> Path:
    """Write ``record`` (JSON values, arrays, paths as their last part) for the output ``path``; returns where.

    The version of the software and the time (UTC) are added. Paths of folders are left out, as they can name a person.
    """
    target = record_path(path)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    text = json.dumps({"software": "cdm4mi", "version": __version__, "written": now, **_plain(record)}, indent=2)
    with replacing_file(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def input_record(volume: Volume) -> dict[str, Any]:
    """Geometry and hash of an input for its record: no names, identifiers or dates."""
    array = np.ascontiguousarray(volume.array)
    return {
        "format": volume.kind,
        "modality": volume.modality,
        "units": volume.units,
        "shape": list(volume.shape),
        "spacing_mm": list(volume.spacing),
        "affine_ras": volume.affine.tolist(),
        "stored_type": str(volume.source.dtype) if volume.source and volume.source.dtype is not None else None,
        "sha256": hashlib.sha256(array.tobytes() + volume.affine.tobytes()).hexdigest(),
        "warnings": list(volume.warnings),
    }


def _plain(value: Any) -> Any:
    """The value in types that JSON has; numbers that it has not (inf, nan) as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.name
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
