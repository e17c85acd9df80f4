"""NRRD (.nrrd, .nhdr with its data beside it) in and out. Format: https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.io.arrays import contiguous, converted
from cdm4mi.io.formats.format import Format
from cdm4mi.io.formats.raw_data import listed_files, read_data_files, write_header_and_data
from cdm4mi.io.geometry import require_independent_axes
from cdm4mi.io.quantise import as_type
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Source, Volume

_WRITTEN = ((".nhdr", ".nhdr.raw"), (".nhdr", ".nhdr.raw.gz"))
_TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "unsigned char", "uchar", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "ushort", "unsigned short", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "uint", "unsigned int", "uint32_t"),
    "i8": ("int64", "longlong", "long long", "long long int", "signed long long", "signed long long int", "int64_t"),
    "u8": ("uint64", "ulonglong", "unsigned long long", "unsigned long long int", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
# Signs that turn a space's axes into RAS.
_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
_TIMED = {"left-posterior-superior-time": "lps", "right-anterior-superior-time": "ras", "lpst": "lps", "rast": "ras"}
_MAX_HEADER = 1 << 20
_TEXT = ("utf-8", "surrogateescape")
"""Names of data files may be any bytes."""


def read_nrrd(file: ScanFile) -> Volume:
    """Read 2 to 4 axes; stored axes, the first the fastest, become (t, k, j, i)."""
    name = file.name
    fields, end = _header(file)
    sizes = tuple(int(n) for n in _numbers(fields, "sizes", name))
    axes = len(sizes)
    if axes not in (2, 3, 4) or fields.get("dimension") != str(axes):
        raise UserError(f"{name}: dimension is {fields.get('dimension')} with {axes} sizes, expected 2 to 4 of each")
    kinds = fields.get("kinds", "").lower().split()
    if any("color" in kind or "vector" in kind or "matrix" in kind for kind in kinds):
        raise UserError(f"{name}: holds colours or vectors ({' '.join(kinds)}), expected one grey value a voxel")
    code = _CODES.get(fields.get("type", "").lower())
    if code is None:
        raise UserError(f"{name}: type is {fields.get('type', 'missing')!r}, expected one of {', '.join(_CODES)}")
    dtype = np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + code)
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise UserError(f"{name}: encoding is {encoding or 'missing'}, expected raw or gzip")
    data_file = fields.get("data file") or fields.get("datafile")
    files = _data_files(file, data_file, end)
    skip = int(_numbers(fields, "byte skip", name, "0")[0])
    if fields.get("line skip", "0") != "0" or (skip and encoding != "raw"):
        raise UserError(f"{name}: lines or compressed bytes are skipped before the data, expected none")
    offset = (end if data_file is None else 0) + max(0, skip)
    stored = read_data_files(files, offset, sizes[::-1], dtype, encoding != "raw", skip == -1)
    # The axis that is not one of space (time) has the direction "none"; in the array it is the slowest.
    directions, signs = _directions(fields, axes, name)
    spatial = [n for n, direction in enumerate(directions) if direction is not None]
    if len(spatial) != min(axes, 3):
        raise UserError(f"{name}: {len(spatial)} of {axes} axes have a direction in space, expected {min(axes, 3)}")
    slowest_first = [*(n for n in range(axes) if n not in spatial), *spatial[::-1]]
    stored = stored.transpose([axes - 1 - n for n in slowest_first])
    affine = np.eye(4)
    for column, axis in enumerate(spatial):
        affine[:3, column] = directions[axis]
    affine[:3, 3] = _vector(fields.get("space origin", "(0,0,0)"), name)
    affine = np.diag([*signs, 1.0]) @ affine
    require_independent_axes(affine, name, "space directions")
    stored = contiguous(stored, dtype)
    array = converted(stored[None] if axes == 2 else stored, np.float32, lambda plane: plane)
    paths = dict.fromkeys((*file.paths, *(path for data in files for path in data.paths)))
    source = Source("nrrd", tuple(paths), fields, dtype.newbyteorder("="))
    return Volume(array, affine, None, source)


def write_nrrd(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write .nrrd, or .nhdr with its data in .nhdr.raw(.gz) beside it. Key/value pairs of a template are kept."""
    kept = dict(template.header) if template is not None and template.kind == "nrrd" else {}
    notes: list[str] = []
    source = template or volume.source
    stored = as_type(volume.array, dtype or (source.dtype if source else None), dtype is not None, set(_TYPES), notes)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    flat = kept.get("dimension") == "2" and len(volume.shape) == 3 and len(volume.array) == 1
    stored = stored[0] if flat else stored
    space, last = _space(kept, stored.ndim)
    width = 2 if space == {"space dimension": "2"} else 3
    columns = [f"({_line(affine[:width, n])})" for n in range(min(stored.ndim, 3))]
    origin = f"({_line(affine[:width, 3])})"
    kinds = ["domain", "domain", "domain"][: stored.ndim]
    if stored.ndim == 4:
        kinds.append("list" if last is None else "time")
        if last is None:
            columns.append("none")
        else:  # time as a fourth axis of space, as ITK has it
            columns = [f"{column[:-1]},0.0)" for column in columns] + [f"(0.0,0.0,0.0,{last!r})"]
            origin = f"{origin[:-1]},0.0)"
    gzip = kept.get("encoding", "raw").lower() != "raw"
    fields = {
        "type": _TYPES[stored.dtype.str[1:]][0],
        "dimension": str(stored.ndim),
        **space,
        "sizes": " ".join(str(n) for n in stored.shape[::-1]),
        "space directions": " ".join(columns),
        "kinds": " ".join(kinds),
        "endian": "little",
        "encoding": "gzip" if gzip else "raw",
        "space origin": origin,
    }
    detached = path.suffix.lower() == ".nhdr"
    raw = path.with_name(path.name + (".raw.gz" if gzip else ".raw"))  # a .raw of the stem may be a MetaImage's
    if detached:
        fields["data file"] = raw.name
    if "measurement frame" in kept and kept.get("space", "").lower() in ("lps", "left-posterior-superior"):
        fields["measurement frame"] = kept["measurement frame"]
    lines = ["NRRD0005", *(f"{key}: {value}" for key, value in fields.items())]
    lines += [f"{key}{value}" for key, value in kept.items() if value.startswith(":=")]
    header = ("\n".join(lines) + "\n\n").encode(*_TEXT)
    wbits = zlib.MAX_WBITS | 16 if gzip else None
    write_header_and_data(path, lambda size: header, stored, wbits, raw if detached else None)
    return notes


def _data_files(file: ScanFile, data_file: str | None, end: int) -> list[ScanFile]:
    """The files that hold the voxels: this one, the one that the header names, or the slices of a list or a pattern."""
    if data_file is None:
        return [file]
    if data_file.split()[0].upper() == "LIST":
        with file.open() as opened:
            opened.seek(end)
            return [file.beside(line.decode(*_TEXT).strip()) for line in opened.readlines(_MAX_HEADER)]
    return listed_files(file, data_file, file.name) if "%" in data_file else [file.beside(data_file)]


def _header(file: ScanFile) -> tuple[dict[str, str], int]:
    """Fields (key/value pairs keep their := in the value) and where the header ends."""
    fields: dict[str, str] = {}
    with file.open() as opened:
        opened.readline(16)
        while opened.tell() < _MAX_HEADER:
            line = opened.readline(_MAX_HEADER).decode(*_TEXT).rstrip("\r\n")
            if not line:
                break
            if re.fullmatch(r"data ?file: *list( \d+)? *", line, re.IGNORECASE):  # the names follow to the end
                fields["data file"] = "LIST"
                break
            if line.startswith("#"):
                continue
            parts = re.match(r"([^:]*)(:=|: ?)?(.*)", line)
            assert parts is not None  # every line fits
            key, mark, value = parts.groups("")
            fields[key if mark == ":=" else key.strip().lower()] = f":={value}" if mark == ":=" else value.strip()
        end = opened.tell()
    if "sizes" not in fields:
        raise UserError(f"{file.name}: the NRRD header is cut short or damaged, expected the field sizes")
    return fields, end


def _directions(fields: dict[str, str], axes: int, name: str) -> tuple[list[NDArray[Any] | None], tuple[int, ...]]:
    """Direction of each axis times its spacing (None for time), and the signs (3) that turn the space into RAS."""
    space = fields.get("space", "").lower()
    space = _TIMED.get(space, space)
    if "space dimension" in fields:  # as ITK writes four axes: LPS and time in one
        space = "lps"
    if not space:
        spacings = _numbers(fields, "spacings", name, " ".join(["1"] * axes))
        unit = np.eye(3)
        steps = [1.0 if not np.isfinite(s) else s for s in spacings]
        return [unit[n] * steps[n] if n < 3 else None for n in range(axes)], (-1, -1, 1)
    if space not in _SPACES:
        raise UserError(f"{name}: space is {space!r}, expected left-posterior-superior or right-anterior-superior")
    texts = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    if len(texts) != axes:
        raise UserError(f"{name}: space directions names {len(texts)} axes, expected {axes}")
    vectors = [None if text == "none" else _vector(text, name) for text in texts]
    return [None if v is None or not v.any() else v for v in vectors], _SPACES[space]


def _space(kept: dict[str, str], axes: int) -> tuple[dict[str, str], float | None]:
    """The field that names the space, and the step of a fourth axis in it (None: that axis is a list beside space).

    As the template has them. Without one, four axes are written as ITK writes them, which reads a list as vectors.
    """
    texts = re.findall(r"none|\([^)]*\)", kept.get("space directions", "").lower())
    plane = axes == 2 and kept.get("space dimension") == "2"
    if axes < 4:
        return ({"space dimension": "2"} if plane else {"space": "left-posterior-superior"}), None
    if "none" in texts:
        return {"space": "left-posterior-superior"}, None
    try:
        step = float(np.linalg.norm([float(part) for part in texts[3].strip(" ()").split(",")])) if texts[3:] else 1.0
    except ValueError:
        step = 1.0
    return {"space": "left-posterior-superior-time"}, step or 1.0


def _vector(text: str, name: str) -> NDArray[Any]:
    """The three numbers of "(x,y,z)"; missing ones are 0."""
    try:
        found = np.array([float(part) for part in text.strip(" ()").split(",")])
    except ValueError:
        found = np.zeros(0)
    if len(found) not in (2, 3, 4):
        raise UserError(f"{name}: {text!r} is no direction or position, expected three numbers (x,y,z)")
    return np.array([*found, 0.0])[:3]


def _numbers(fields: dict[str, str], key: str, name: str, default: str = "") -> list[float]:
    text = fields.get(key, default)
    try:
        found = [float(part) for part in text.split()]
    except ValueError:
        found = []
    if not found or (key != "spacings" and not all(np.isfinite(found))):
        raise UserError(f"{name}: {key} is {text!r}, expected numbers")
    return found


def _line(values: NDArray[Any]) -> str:
    return ",".join(repr(float(v) + 0.0) for v in values)


FORMAT = Format(
    name="nrrd",
    title="NRRD",
    endings=(".nrrd", ".nhdr"),
    read=read_nrrd,
    write=write_nrrd,
    magic=(b"NRRD000",),
    data_endings=(*_WRITTEN, (".nhdr", ".raw"), (".nhdr", ".raw.gz"), (".nhdr", ".gz")),
    data_written=_WRITTEN,
)
