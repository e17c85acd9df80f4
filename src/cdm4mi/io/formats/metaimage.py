"""MetaImage (.mha, .mhd with .raw or .zraw) in and out, as ITK reads and writes it: positions in LPS millimetres.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. A row of TransformMatrix is the direction of one axis.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import converted
from cdm4mi.io.formats.format import Format
from cdm4mi.io.formats.raw_data import listed_files, read_data_files, write_header_and_data
from cdm4mi.io.geometry import lps_to_ras, require_independent_axes
from cdm4mi.io.quantise import as_type
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Source, Volume

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_NAMES = {code: name for name, code in _TYPES.items() if name not in ("MET_LONG", "MET_ULONG")}
# Alternative names of one field, the one that is written first.
_OFFSET, _MATRIX = ("Offset", "Position", "Origin"), ("TransformMatrix", "Rotation", "Orientation")
_SPACING = ("ElementSpacing", "ElementSize")
_MAX_HEADER = 65536
_TEXT = ("utf-8", "surrogateescape")
"""Names of data files may be any bytes."""


def _recognise(head: bytes, file: ScanFile) -> bool:
    return any(line.strip().startswith((b"ObjectType", b"NDims")) for line in head.split(b"\n")[:8])


def read_metaimage(file: ScanFile) -> Volume:
    """Read 2 to 4 axes; stored axes (i, j, k, t), i fastest, become (t, k, j, i)."""
    name = file.name
    fields, end = _header(file)
    count = _numbers(fields, ("NDims",), 1, name)[0]
    if count not in (2, 3, 4):
        raise UserError(f"{name}: NDims is {count:g}, expected 2 to 4")
    axes = int(count)
    sizes = tuple(int(n) for n in _numbers(fields, ("DimSize",), axes, name))
    if int(_numbers(fields, ("ElementNumberOfChannels",), 1, name, [1.0])[0]) != 1:
        raise UserError(f"{name}: has several channels (colour or vectors), expected one grey value a voxel")
    code = _TYPES.get(fields.get("ElementType", ""))
    if code is None:
        raise UserError(
            f"{name}: ElementType is {fields.get('ElementType', 'missing')!r}, expected one of {', '.join(_TYPES)}"
        )
    big = any(_true(fields.get(key)) for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    if "BinaryData" in fields and not _true(fields["BinaryData"]):
        raise UserError(f"{name}: the voxels are written as text, expected binary")
    dtype = np.dtype((">" if big else "<") + code)
    data_file = fields["ElementDataFile"]
    local = data_file.upper() == "LOCAL"
    if data_file.split()[0].upper() == "LIST":
        with file.open() as opened:
            opened.seek(end)
            lines = [line.decode(*_TEXT).strip() for line in opened.readlines(_MAX_HEADER)]
        files = [file.beside(line) for line in lines if line]
    elif "%" in data_file:
        files = listed_files(file, data_file, name)
    else:
        files = [file if local else file.beside(data_file)]
    skip = int(_numbers(fields, ("HeaderSize",), 1, name, [0.0])[0])
    offset = (end if local else 0) + max(0, skip)
    stored = read_data_files(files, offset, sizes[::-1], dtype, _true(fields.get("CompressedData")), skip == -1)
    space = min(axes, 3)
    spacing = _numbers(fields, _SPACING, axes, name, [1.0] * axes)[:space]
    origin = _numbers(fields, _OFFSET, axes, name, [0.0] * axes)[:space]
    matrix = np.array(_numbers(fields, _MATRIX, axes * axes, name, list(np.eye(axes).ravel()))).reshape(axes, axes)
    affine = np.eye(4)
    affine[:space, :space] = matrix[:space, :space].T * spacing
    affine[:space, 3] = origin
    require_independent_axes(affine, name, "TransformMatrix and ElementSpacing")
    array = converted(stored[None] if axes == 2 else stored, np.float32, lambda plane: plane)
    modality = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR"}.get(fields.get("Modality", ""))
    paths = dict.fromkeys((*file.paths, *(path for data in files for path in data.paths)))
    source = Source("mha", tuple(paths), fields, dtype.newbyteorder("="))
    return Volume(array, lps_to_ras(affine), modality, source)


def write_metaimage(
    volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None
) -> list[str]:
    """Write .mha, or .mhd with its data in a .raw (.zraw) beside it. Fields of a MetaImage template are kept."""
    kept = dict(template.header) if template is not None and template.kind == "mha" else {}
    notes: list[str] = []
    source = template or volume.source
    stored = as_type(volume.array, dtype or (source.dtype if source else None), dtype is not None, set(_NAMES), notes)
    if len(volume.shape) == 3 and kept.get("NDims") == "2":
        stored = stored[0]
    axes, space = stored.ndim, min(stored.ndim, 3)
    affine = lps_to_ras(volume.affine)
    spacing = np.ones(axes)
    spacing[:space] = np.linalg.norm(affine[:3, :3], axis=0)[:space]
    matrix, origin = np.eye(axes), np.zeros(axes)
    matrix[:space, :space] = (affine[:space, :space] / spacing[:space]).T
    origin[:space] = affine[:space, 3]
    if axes == 4:
        spacing[3:] = [float(v) for v in kept.get("ElementSpacing", "1 1 1 1").split()[3:4]] or [1.0]
    compressed = _true(kept.get("CompressedData"))
    detached = path.suffix.lower() == ".mhd"
    fields = {"ObjectType": "Image", "NDims": str(axes), "BinaryData": "True", "BinaryDataByteOrderMSB": "False"}
    fields["CompressedData"] = str(compressed)
    fields |= {"CompressedDataSize": ""} if compressed else {}  # set below
    fields |= {"TransformMatrix": _line(matrix), "Offset": _line(origin)}
    fields["CenterOfRotation"] = kept.get("CenterOfRotation", _line(np.zeros(axes)))
    # ITK's letters name where an axis comes from: RAI is LPS.
    fields["AnatomicalOrientation"] = kept.get("AnatomicalOrientation", "RAI")
    fields |= {"ElementSpacing": _line(spacing), "DimSize": " ".join(str(n) for n in stored.shape[::-1])}
    fields["ElementType"] = _NAMES[stored.dtype.str[1:]]
    raw = path.with_suffix(".zraw" if compressed else ".raw")
    ours = {*fields, *_OFFSET, *_MATRIX, *_SPACING, "CompressedDataSize", "ElementByteOrderMSB", "HeaderSize"}
    extra = {key: value for key, value in kept.items() if key not in ours and key != "ElementDataFile"}
    lines = {**fields, **extra, "ElementDataFile": raw.name if detached else "LOCAL"}

    def header(size: int) -> bytes:
        counted = lines | ({"CompressedDataSize": str(size)} if compressed else {})
        return "".join(f"{key} = {value}\n" for key, value in counted.items()).encode(*_TEXT)

    write_header_and_data(path, header, stored, zlib.MAX_WBITS if compressed else None, raw if detached else None)
    return notes


def _header(file: ScanFile) -> tuple[dict[str, str], int]:
    """Fields up to ElementDataFile, which is the last, and where the header ends."""
    fields: dict[str, str] = {}
    with file.open() as opened:
        while opened.tell() < _MAX_HEADER:
            line = opened.readline(_MAX_HEADER).decode(*_TEXT)
            key, equals, value = line.partition("=")
            if not equals:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, opened.tell()
    raise UserError(f"{file.name}: the header is cut short or damaged, expected it to end with ElementDataFile")


def _numbers(
    fields: dict[str, str], keys: tuple[str, ...], count: int, name: str, default: list[float] | None = None
) -> list[float]:
    text = next((fields[key] for key in keys if key in fields), None)
    if text is None and default is not None:
        return default
    try:
        found = [float(part) for part in (text or "").split()]
    except ValueError:
        found = []
    if len(found) != count or not np.isfinite(found).all():
        raise UserError(f"{name}: {keys[0]} is {text or 'missing'}, expected {count} number(s)")
    return found


def _true(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("true", "1")


def _line(values: NDArray[Any]) -> str:
    return " ".join(repr(float(v) + 0.0) for v in values.ravel())


FORMAT = Format(
    name="mha",
    title="MHA/MHD",
    endings=(".mha", ".mhd"),
    read=read_metaimage,
    write=write_metaimage,
    recognise=_recognise,
    data_endings=((".mhd", ".raw"), (".mhd", ".zraw")),
)
