"""Restored slices as they are finished: in memory, or in a folder from which a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import TEMPORARY, Taken, disk_error, make_folder, replacing_file, writing
from cdm4mi.io.arrays import empty, from_file, reserve
from cdm4mi.records import Record, read_record_as

FLOAT = np.dtype(np.float32)


class Pace(Record):
    """How slices go through the network, which decides how their sums are rounded.

    slab: slices that are prepared and put away together; slices: of them, at a time in the network; pixels: at a time,
    where the network sees windows.
    """

    slab: int
    slices: int
    pixels: int


class Totals(Record):
    """What is summed over the finished slices: pixels above the window, pixels left as found, squares of what was put
    back of low frequencies, seconds."""

    above: int = 0
    left: int = 0
    put_back: float = 0.0
    seconds: float = 0.0


class _Line(Record):
    """A line of the journal: the slices before ``stop`` are on the disk."""

    stop: int
    pace: Pace
    totals: Totals


class _Manifest(Record):
    key: str
    pace: Pace


class Slabs:
    """Images (N, channels, rows, columns) that are put in slab by slab, first to last, and their standard deviation.

    folder: where they lie, with a manifest and a journal; None: in memory. In a folder each slab is on the disk before
    the journal names it, so that what a killed run leaves is whole as far as the journal goes.
    """

    restored: NDArray[np.float32]
    spread: NDArray[np.float32] | None

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.done, self.totals = folder, 0, Totals()
        self._files: list[BinaryIO] = []
        self._parts: list[Slabs] = []

    @property
    def kept(self) -> bool:
        """Whether there is a finished slab, here or in a part."""
        return self.done > 0 or any(part.kept for part in self._parts)

    @property
    def seconds(self) -> float:
        """Spent on the finished slabs, here and in parts."""
        return self.totals.seconds + sum(part.seconds for part in self._parts)

    def part(self, name: str) -> Slabs:
        """Slabs of their own beside these, from which the images put in here are made."""
        folder = None if self.folder is None else self.folder / name
        if folder is not None:
            make_folder(folder)
        self._parts.append(Slabs(folder))
        return self._parts[-1]

    def begin(self, key: dict[str, Any], shape: tuple[int, ...], spread: bool, pace: Pace) -> Pace:
        """Make room for images of ``shape``, or go on with those of a run of the same key. Returns the pace to keep.

        key: JSON values, all that the images follow from.
        """
        names = ["restored", *(["spread"] if spread else [])]
        if self.folder is None:
            arrays = [empty(shape, FLOAT) for _ in names]
        else:
            digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
            size = int(np.prod(shape)) * FLOAT.itemsize
            found = self._left(digest, names, size)
            if found is None:
                self._make(digest, names, size, pace)
            else:
                self.done, pace, self.totals = found
            self._files = [(self.folder / name).open("r+b") for name in names]
            arrays = [from_file(file, FLOAT, shape) for file in self._files]
        self.restored, self.spread = arrays[0], arrays[1] if spread else None
        return pace

    def put(self, images: NDArray[Any], spread: NDArray[Any] | None, pace: Pace, totals: Totals) -> None:
        """Add the next images; totals: of all slices so far."""
        stop = self.done + len(images)
        if self.folder is None:
            self.restored[self.done : stop] = images
            if spread is not None and self.spread is not None:
                self.spread[self.done : stop] = spread
        else:
            at = self.done * images[0].size * FLOAT.itemsize
            for file, values in zip(self._files, (images, spread), strict=False):
                assert values is not None
                file.seek(at)
                file.write(np.ascontiguousarray(values, FLOAT).tobytes())
                _to_disk(file)
            with self._journal.open("ab") as journal:
                journal.write(_Line(stop=stop, pace=pace, totals=totals).model_dump_json().encode() + b"\n")
                _to_disk(journal)
        self.done, self.totals = stop, totals

    def close(self) -> None:
        """Close the files. The arrays keep their values."""
        for file in self._files:
            file.close()
        for part in self._parts:
            part.close()

    @property
    def _journal(self) -> Path:
        assert self.folder is not None
        return self.folder / "journal"

    @property
    def _manifest(self) -> Path:
        assert self.folder is not None
        return self.folder / "manifest.json"

    def _make(self, key: str, names: list[str], size: int, pace: Pace) -> None:
        assert self.folder is not None
        self._manifest.unlink(missing_ok=True)
        for name in names:
            with (self.folder / name).open("wb") as file:
                reserve(file, size)
        self._journal.write_bytes(b"")
        with replacing_file(self._manifest) as temporary:
            temporary.write_text(_Manifest(key=key, pace=pace).model_dump_json(), encoding="utf-8")

    def _left(self, key: str, names: list[str], size: int) -> tuple[int, Pace, Totals] | None:
        """How many slices are there, at which pace the next go, and their totals; None where nothing of this key is."""
        assert self.folder is not None
        try:
            manifest = read_record_as(_Manifest, self._manifest.read_bytes(), str(self._manifest), "a manifest")
            if manifest.key != key or any((self.folder / name).stat().st_size != size for name in names):
                return None
            lines = self._journal.read_bytes().split(b"\n")[:-1]  # a line that was cut short ends without one
            last = read_record_as(_Line, lines[-1], str(self._journal), "a line") if lines else None
        except (OSError, UserError):
            return None
        return (0, manifest.pace, Totals()) if last is None else (last.stop, last.pace, last.totals)


@contextmanager
def kept_beside(output: Path) -> Iterator[Slabs]:
    """Slabs in the state folder of an output, which is removed when the block ends, but for a kill, a full disk and a
    place that something else has taken meanwhile.

    Whoever calls it holds the output (``locks.sole_writer``). Raises UserError where nothing can be written beside it.
    """
    folder = state_folder(output)
    with writing(output):
        make_folder(folder)
        slabs = Slabs(folder)
        keep = False
        try:
            yield slabs
        except UserError as error:  # the same command would only fail again, but where disk or place are free by then
            keep = isinstance(error, Taken) or disk_error(error) is not None
            raise
        except BaseException:
            keep = True
            raise
        finally:
            slabs.close()
            if not (keep and slabs.kept):
                shutil.rmtree(folder, ignore_errors=True)


def state_folder(output: Path) -> Path:
    """Where a restoration keeps its finished slices until its output is whole: a hidden folder beside the output."""
    return output.with_name(f"{TEMPORARY}partial-{output.name}")


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
