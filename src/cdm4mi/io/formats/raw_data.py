"""A text header and raw or deflated voxels in one file or two, as MetaImage and NRRD have them."""

from __future__ import annotations

import io
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.arrays import check_memory, from_file, planes, put, scratch_file
from cdm4mi.io.scan_file import DEFLATE_GAIN, GZIP, ScanFile

_PART = 2**20
"""Bytes of packed data, and of what they unpack to, that are in memory at a time."""
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
        offset = max(0, file.size - needed) if from_end else offset
        try:
            if not compressed:
                return from_file(opened, dtype, shape, offset)
            opened.seek(offset)
            with _inflated(opened, needed, file.name) as data:
                return from_file(data, dtype, shape)
        except ValueError as error:
            raise UserError(f"{file.name}: the voxel data do not fit the header: {error}") from None


def _inflated(packed: BinaryIO, needed: int, name: str) -> BinaryIO:
    """The first ``needed`` bytes of zlib or gzip data, which are read to their end, so that their checksum counts."""
    made, left = scratch_file() or io.BytesIO(), needed
    try:
        waiting = packed.read(_PART)
        while waiting:
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
            while not inflater.eof:
                part = inflater.decompress(waiting, _PART)
                put(made, part[:left])
                left -= len(part[:left])
                waiting = inflater.unconsumed_tail or (b"" if inflater.eof else packed.read(_PART))
                if not waiting and not part and not inflater.eof:
                    raise zlib.error("cut short")
            # gzip may come in several members; what else follows is none of it
            waiting = inflater.unused_data + packed.read(len(GZIP))
            waiting = waiting + packed.read(_PART) if waiting.startswith(GZIP) else b""
    except zlib.error:
        raise UserError(f"{name}: the compressed voxel data are damaged or cut short") from None
    return made


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


def write_header_and_data(
    path: Path, header: Callable[[int], bytes], stored: NDArray[Any], wbits: int | None, data_path: Path | None
) -> None:
    """Write both to one file, or the voxels to ``data_path`` beside the header. Neither appears without the other.

    header: made of the bytes that the voxels take; stored: the voxels, which are written little endian; wbits: how zlib
    packs them (its argument of that name), None: not at all.
    """
    if data_path is not None:
        with replacing_file(data_path) as first, replacing_file(path) as second:
            with first.open("wb") as file:
                size = _write_voxels(file, stored, wbits)
            second.write_bytes(header(size))
        return
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        if wbits is None:
            file.write(header(stored.nbytes))
            _write_voxels(file, stored, wbits)
            return
        with scratch_file() or io.BytesIO() as packed:
            file.write(header(_write_voxels(packed, stored, wbits)))
            packed.seek(0)
            shutil.copyfileobj(packed, file)


def _write_voxels(file: BinaryIO, stored: NDArray[Any], wbits: int | None) -> int:
    """Write voxels plane by plane. Returns how many bytes they take."""
    packer = None if wbits is None else zlib.compressobj(wbits=wbits)
    little = stored.dtype.newbyteorder("<")
    for plane in planes(stored):
        data = plane.astype(little).tobytes()
        file.write(data if packer is None else packer.compress(data))
    if packer is not None:
        file.write(packer.flush())
    return file.tell()
