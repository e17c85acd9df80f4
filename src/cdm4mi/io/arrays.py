"""Arrays of a scan's size: in memory, or in files where a scan of any length has to be gone through in bounded memory.

Within ``arrays_in(folder)`` a large array lies in a file without a name in that folder, which the system removes with
the process. It is an ordinary NumPy array (a shared memory map): code that goes through it by ``planes`` or ``chunks``
holds a few planes of it in memory, and the same code serves arrays that lie in memory.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import DTypeLike, NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import writing

SMALL = 2**22
"""Bytes up to which an array stays in memory."""
HELD = 2**24
"""Bytes of an array in a file that are in memory at a time while it is gone through."""
_folder: ContextVar[Path | None] = ContextVar("folder of arrays", default=None)


@contextmanager
def arrays_in(folder: Path) -> Iterator[None]:
    """Put the large arrays that are made within the block into files in ``folder``."""
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """A new array, its values not set. Raises UserError where the disk has no room for it."""
    folder, dtype = _folder.get(), np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if folder is None or size <= SMALL:
        return np.empty(shape, dtype)
    with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, size)
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


def zeros(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """A new array of zeros, as ``empty``."""
    array = empty(shape, dtype)
    if not in_file(array):  # a new file holds zeros
        array[...] = 0
    return array


def reserve(file: Any, size: int) -> None:
    """Make a file so long. Its place on the disk is taken now: a write into a map of it cannot fail for want of it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def scratch_file() -> BinaryIO | None:
    """A file without a name in the folder of ``arrays_in``; None outside of it."""
    folder = _folder.get()
    if folder is None:
        return None
    with writing(folder):
        return tempfile.TemporaryFile(dir=folder)


def put(file: BinaryIO, data: bytes) -> None:
    """Write to a scratch file, or to one in memory. Raises UserError where the disk has no room for it."""
    try:
        with writing(_folder.get() or Path(tempfile.gettempdir())):
            file.write(data)
            file.flush()
    except UserError:
        with suppress(OSError):
            file.close()  # which would write the rest, now or when it is forgotten
        raise


def free_space() -> tuple[str, int]:
    """What arrays lie in, in words, and how many bytes of it are free."""
    folder = _folder.get()
    if folder is None:
        return "memory", int(psutil.virtual_memory().available)
    return f"disk of {folder}", shutil.disk_usage(folder).free


def from_file(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> NDArray[Any]:
    """The array (slowest axis first) whose bytes begin at ``offset`` of an open file, as a map of it where it has one.

    Raises ValueError where the file is shorter.
    """
    needed, held = math.prod(shape) * dtype.itemsize, max(0, file.seek(0, os.SEEK_END) - offset)
    if held < needed:
        raise ValueError(f"expected {needed} bytes, found {held}")
    try:
        file.fileno()
    except OSError:  # a file in memory
        file.seek(offset)
        return np.frombuffer(file.read(needed), dtype).reshape(shape)
    return np.memmap(file, dtype, "r", offset, shape)


def in_file(array: NDArray[Any]) -> bool:
    """Whether an array lies in a file, whose values outlive the pages of memory that show them."""
    return _map(array) is not None


def _map(array: NDArray[Any]) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":
            return None  # what was changed in it is in memory alone
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def release(array: NDArray[Any]) -> None:
    """Give the memory back that shows an array in a file; its values stay. Nothing for an array in memory."""
    found = _map(array)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def planes(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The planes of the last two axes in order, as views; of an array in a file few are in memory at a time."""
    held = 0
    for index in np.ndindex(array.shape[:-2]):
        plane = array[index]
        yield plane
        held += plane.nbytes
        if held >= HELD:
            release(array)
            held = 0
    release(array)


def converted(array: NDArray[Any], dtype: DTypeLike, convert: Callable[[NDArray[Any]], Any]) -> NDArray[Any]:
    """A new array of this shape, plane by plane what ``convert`` makes of a plane."""
    made = empty(array.shape, dtype)
    for out, plane in zip(planes(made), planes(array), strict=True):
        out[...] = convert(plane)
    return made


def contiguous(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """The array of this type with its last axis fastest: itself where it is so, else a copy."""
    array = np.asarray(array)
    if array.flags.c_contiguous and array.dtype == np.dtype(dtype):
        return array
    if not in_file(array):
        return np.ascontiguousarray(array, dtype)
    made = empty(array.shape, dtype)
    for block in _blocks(made):
        for part in _blocks(array):
            made[block][part] = array[block][part]
            release(array)
            release(made)
    return made


def _blocks(array: NDArray[Any]) -> Iterator[tuple[slice, ...]]:
    """Slices along the axis that is slowest in the file, each of about ``HELD`` bytes of it."""
    axis = int(np.argmax([abs(stride) if n > 1 else 0 for stride, n in zip(array.strides, array.shape, strict=True)]))
    count = max(1, HELD // abs(array.strides[axis]))
    for first in range(0, array.shape[axis], count):
        yield (*[slice(None)] * axis, slice(first, first + count))


def limits(array: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest value."""
    found = [(plane.min(), plane.max()) for plane in planes(array)]
    return float(min(low for low, _ in found)), float(max(high for _, high in found))


def count_where(array: NDArray[Any], condition: Callable[[NDArray[Any]], Any]) -> int:
    """How many values there are of which a function of planes to bool holds."""
    return sum(int(np.count_nonzero(condition(plane))) for plane in planes(array))


def check_memory(name: str, shape: tuple[int, ...], stored_voxels: int, gain: int = 1) -> None:
    """Refuse a header that claims more voxels than the file can hold, before any memory is taken for them.

    ``stored_voxels``: bytes that the file has for the pixels over the bytes that a voxel takes; ``gain``: the most
    that the compression in use can shrink them (1 for none, 1032 for deflate).
    """
    if any(n <= 0 for n in shape):
        raise UserError(f"{name}: the header gives the size {_size(shape)}, expected at least 1 along every axis")
    if math.prod(shape) > stored_voxels * gain:
        raise UserError(f"{name}: the header claims {_size(shape)} voxels, the file holds only {stored_voxels}")
    check_free_memory(name, shape)


def check_free_memory(name: str, shape: tuple[int, ...]) -> None:
    """Refuse what would not fit into the memory that is free: twice the float32 array, where arrays lie in memory."""
    needed = math.prod(shape) * 8
    if _folder.get() is None and needed > 2**28 and needed > psutil.virtual_memory().available:
        raise UserError(f"{name}: {_size(shape)} voxels need {needed / 2**30:.1f} GB of memory, more than is free")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
