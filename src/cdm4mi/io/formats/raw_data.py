"""A text header and raw or deflated voxels in one file or two, as MetaImage and NRRD have them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.scan_file import DEFLATE_GAIN, GZIP, ScanFile
from cdm4mi.io.volume import check_memory

MOST_FILES = 100_000
"""More files than any list of slices has."""


def read_raw_data(
    file: ScanFile,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compressed: bool,
    from_end: bool = False,
) -> NDArray[Any]:
    """Voxels of ``shape`` (slowest axis first) that begin ``offset`` bytes into the file, or are its last bytes.

    Compressed data may be in zlib or gzip form. UserError where the file holds less than the header claims.
    """
    stored = max(0, file.size - (0 if from_end else offset))
    check_memory(file.name, shape, stored // dtype.itemsize + bool(compressed), DEFLATE_GAIN if compressed else 1)
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    with file.open() as opened:
        opened.seek(file.size - needed if from_end else offset)
        data = _inflated(opened.read(), needed, file.name) if compressed else opened.read(needed)
    if len(data) < needed:
        raise UserError(f"{file.name}: holds {len(data)} bytes of voxel data, expected {needed} as its header says")
    return np.frombuffer(data, dtype).reshape(shape)


def _inflated(packed: bytes, needed: int, name: str) -> bytes:
    """The first ``needed`` bytes of zlib or gzip data, which are read to their end, so that their checksum counts."""
    parts, left = [], needed
    try:
        while packed:
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
            while not inflater.eof:
                part = inflater.decompress(packed, left or 2**20)
                if not part and not inflater.eof:
                    raise zlib.error("cut short")
                parts.append(part[:left])
                left -= len(parts[-1])
                packed = inflater.unconsumed_tail
            # gzip may come in several members; what else follows is none of it
            packed = inflater.unused_data if inflater.unused_data.startswith(GZIP) else b""
    except zlib.error:
        raise UserError(f"{name}: the compressed voxel data are damaged or cut short") from None
    return b"".join(parts)


def read_data_files(
    files: Sequence[ScanFile],
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compressed: bool,
    from_end: bool,
) -> NDArray[Any]:
    """Voxels of ``shape`` in one file, or in files that each hold an equal share of the slowest axes, in order."""
    if len(files) == 1:
        return read_raw_data(files[0], offset, shape, dtype, compressed, from_end)
    for leading in range(1, len(shape)):
        if int(np.prod(shape[:leading])) == len(files):
            parts = [read_raw_data(file, offset, shape[leading:], dtype, compressed, from_end) for file in files]
            return np.stack(parts).reshape(shape)
    raise UserError(
        f"{files[0].name}: names {len(files)} data files for {' x '.join(map(str, shape))} voxels, expected one a slice"
    )


def listed_files(file: ScanFile, pattern: str, name: str) -> list[ScanFile]:
    """The data files of a pattern "s%03d.raw first last step", which lie beside the header."""
    parts = pattern.split()
    try:
        first, last, step = (int(part) for part in (*parts[1:3], *(parts[3:4] or ["1"])))
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if len(numbers) > MOST_FILES:
            raise ValueError
        names = [parts[0] % number for number in numbers]
    except (TypeError, ValueError):
        names = []
    if not names:
        raise UserError(f"{name}: its data files are {pattern!r}, expected a pattern as 's%03d.raw 1 20 1'")
    return [file.beside(one) for one in names]


def write_header_and_data(path: Path, header: bytes, data: bytes, data_path: Path | None) -> None:
    """Write both to one file, or the voxels to ``data_path`` beside the header. Neither appears without the other."""
    if data_path is None:
        with replacing_file(path) as temporary:
            temporary.write_bytes(header + data)
        return
    with replacing_file(data_path) as first, replacing_file(path) as second:
        first.write_bytes(data)
        second.write_bytes(header)
