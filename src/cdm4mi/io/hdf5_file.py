"""New HDF5 files, made in memory: HDF5 crashes the process where a full disk did not take what it closes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which is written to ``path`` in one piece when the block ends well."""
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        path.write_bytes(file.id.get_file_image())
