"""New HDF5 files, on a disk that may be full: HDF5 crashes the process where a disk did not take what it closes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from cdm4mi.io.arrays import HELD, release


class _Unfailing(io.RawIOBase):
    """A binary file that takes every write; ``error`` is the first that the disk did not take."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def readinto(self, buffer: Any) -> int | None:
        return self.file.readinto(buffer)

    def write(self, data: Any) -> int:
        view, position = memoryview(data).cast("B"), self.file.tell()
        done = 0
        try:
            while self.error is None and done < len(view):
                done += self.file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        self.file.seek(position + len(view))
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill. Raises the OSError of a disk that is full when the block ends."""
    with path.open("w+b", buffering=0) as disk:
        unfailing = _Unfailing(disk)
        with h5py.File(unfailing, "w") as file:
            yield file
        if unfailing.error is not None:
            raise unfailing.error


def dataset_of(file: h5py.File, name: str, array: NDArray[Any], **options: Any) -> h5py.Dataset:
    """A new data set with the values of an array, of which a few planes are in memory at a time.

    options: chunks and filters, as ``h5py.Group.create_dataset`` takes them.
    """
    dataset = file.create_dataset(name, array.shape, array.dtype, **options)
    if not array.ndim:
        dataset[()] = array
        return dataset
    along = (dataset.chunks or (1,))[0]
    step = max(1, HELD // max(1, array[:1].nbytes) // along) * along
    for first in range(0, len(array), step):
        dataset[first : first + step] = array[first : first + step]
        release(array)
    return dataset
