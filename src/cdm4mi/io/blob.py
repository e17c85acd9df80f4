"""Raw or deflated voxel data behind a text header, as MetaImage and NRRD have it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.io.volume import check_memory

DEFLATE_GAIN = 1040  # deflate cannot gain more than about 1032 to 1


def read_blob(
    path: Path,
    name: str,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compressed: bool,
    from_end: bool = False,
) -> NDArray[Any]:
    """Array of ``shape`` (slowest axis first) from ``offset`` bytes into the file, or from its last bytes.

    Deflated data may be in zlib or gzip form. UserError where the file holds less than the header claims.
    """
    size = path.stat().st_size
    stored = max(0, size - (0 if from_end else offset))
    check_memory(name, shape, stored // dtype.itemsize + bool(compressed), DEFLATE_GAIN if compressed else 1)
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    with open(path, "rb") as file:
        file.seek(size - needed if from_end else offset)
        if not compressed:
            data = file.read(needed)
        else:
            try:
                data = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(file.read(), needed)
            except zlib.error:
                raise UserError(f"{name}: the compressed voxel data are damaged") from None
    if len(data) < needed:
        raise UserError(f"{name}: holds {len(data)} bytes of voxel data, expected {needed} as its header says")
    return np.frombuffer(data, dtype).reshape(shape)


def neighbour(path: Path, name: str, said: str) -> Path:
    """The data file that a header names; only a plain name in the same folder is followed."""
    other = path.parent / said
    if Path(said).name != said or not other.is_file():
        raise UserError(f"{name}: names a data file that is not beside it, expected its header and data in one folder")
    return other
