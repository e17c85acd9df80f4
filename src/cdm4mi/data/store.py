"""The slices of one scan in an HDF5 file: integers with a scale, chunked so that a patch is read alone."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.records import ScanContent, ScanRecord, StoredValues
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.hdf5_file import hdf5_file
from cdm4mi.io.quantise import Grid, refine
from cdm4mi.io.volume import Source
from cdm4mi.window import IntensityWindow

CHUNK = 64
"""Side of a chunk in pixels: that of the usual training patch, which then lies in at most four chunks."""
LEAST_STEP = 2.0**-13
"""Coarsest step of scaled int16, as a share of the intensity window; else float32 is stored."""
OPEN_FILES = 64
FAR_OUTSIDE, MOST_NOISY = 1.5, 2.0
"""On [-1, 1]: clean values beyond the first are not tissue; noisy values there are clipped to the second."""
TARGET, CONDITION = "target", "condition"
_INT16 = np.dtype(np.int16)


def choose_grid(values: NDArray[Any], source: Source | None, window: IntensityWindow) -> Grid | None:
    """The int16 grid that stores ``values`` (N, rows, columns; physical units) well enough; None: use float32.

    Exact: whole numbers, or the steps of the file that the scan came from. Finely enough: the range of the values in
    65 535 steps, each at most 2^-13 of the intensity window.
    """
    low, high = float(values.min()), float(values.max())
    middle = float(np.rint((low + high) / 2))
    candidates = [Grid(_INT16), Grid(_INT16, 1.0, middle)]
    if source is not None and source.slope > 0:
        steps = float(np.rint((middle - source.intercept) / source.slope))
        for intercept in (source.intercept, source.intercept + steps * source.slope):
            candidates.append(Grid(_INT16, source.slope, intercept))
    exact = refine(values, candidates, only_exact=True)
    if exact is not None:
        return exact
    step = (high - low) / 65534
    return Grid(_INT16, step, (low + high) / 2) if 0 < step <= LEAST_STEP * (window.high - window.low) else None


def write_scan(path: Path, content: ScanContent, arrays: dict[str, tuple[NDArray[Any], Grid | None]]) -> ScanRecord:
    """Write the file of one scan; it appears whole or not at all. Returns its record: content, and how it is stored.

    arrays: "target" and, for a real pair, "condition": (N, rows, columns) in physical units, with the grid they are
    stored on. The record is kept in the file, together with a hash of each slice.
    """
    hashes = [slice_hash(image) for image in arrays[TARGET][0]]
    stored_as: dict[str, StoredValues] = {}
    with replacing_file(path) as temporary, hdf5_file(temporary) as file:
        for name, (values, grid) in arrays.items():
            dataset = file.create_dataset(
                name,
                values.shape,
                grid.dtype if grid else np.float32,
                chunks=(1, *(min(CHUNK, side) for side in values.shape[1:])),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            error = 0.0
            for k, image in enumerate(values):
                stored = grid.encode(image) if grid else image
                dataset[k] = stored
                if grid:
                    error = max(error, float(np.abs(grid.decode(stored) - image).max()))
            scale, offset = (grid.slope, grid.intercept) if grid else (1.0, 0.0)
            stored_as[name] = StoredValues(dtype=str(dataset.dtype), scale=scale, offset=offset, error=error)
        if CONDITION in arrays:
            both = zip(hashes, map(slice_hash, arrays[CONDITION][0]), strict=True)
            file["pair_hashes"] = _rows([hashlib.blake2b(a + b, digest_size=16).digest() for a, b in both])
        file["hashes"] = _rows(hashes)
        record = ScanRecord(
            **dict(content),
            file=f"{path.parent.name}/{path.name}",
            sha256=hashlib.sha256(b"".join(hashes)).hexdigest(),
            stored=stored_as,
        )
        file.attrs["record"] = json.dumps(record.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return record


def read_record(path: Path) -> tuple[ScanRecord, list[bytes], list[bytes]] | None:
    """(record, hashes of the slices, hashes of the pairs or else slices) of a store file; None for what is not one."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            hashes = [row.tobytes() for row in file["hashes"][()]]
            pairs = [row.tobytes() for row in file["pair_hashes"][()]] if "pair_hashes" in file else hashes
            return ScanRecord.model_validate_json(file.attrs["record"]), hashes, pairs
    except (OSError, KeyError, ValueError, RecursionError):  # pydantic's is a ValueError
        return None


def slice_hash(image: NDArray[Any]) -> bytes:
    """16 bytes that are equal for equal slices in physical units, also where one is stored mirrored or turned."""
    image = np.asarray(image, np.float32) + np.float32(0)  # -0 is 0
    turns = [np.rot90(side, n) for side in (image, image[:, ::-1]) for n in range(4)]
    shape, content = min((turn.shape, turn.tobytes()) for turn in turns)
    return hashlib.blake2b(content, digest_size=16, person=f"{shape[0]}x{shape[1]}".encode()[:16]).digest()


@dataclass(frozen=True)
class StoredScan:
    """The slices of one store file on [-1, 1]. It holds no open file, so that it can go to another process."""

    path: Path
    shape: tuple[int, int]
    grids: dict[str, Grid | None]
    window: IntensityWindow
    foreground_above: float

    def read(self, name: str, k: int, crop: Any) -> NDArray[Any]:
        """Physical values of a part of slice k, float32; UserError where the file is gone or damaged."""
        try:
            raw = _open_files(os.getpid()).read(str(self.path), name, (k, *crop))
        except (OSError, KeyError):
            raise UserError(f"{self.path}: missing or damaged, expected the store as cdm4mi prepare wrote it") from None
        grid = self.grids[name]
        return raw.copy() if grid is None else grid.decode(raw)


@dataclass(frozen=True)
class StoredSlice:
    """Clean slice k of a scan: ``plane[rows, columns]`` reads a part, float32 clipped to [-1, 1]."""

    scan: StoredScan
    k: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scan.shape

    def __getitem__(self, crop: Any, /) -> NDArray[Any]:
        return self.scan.window.normalised(self.scan.read(TARGET, self.k, _pair(crop))).clip(-1, 1)


@dataclass(frozen=True)
class StoredCondition:
    """Real noisy slice k of a scan, float32 on the [-1, 1] of the clean one; noise may exceed it.

    Where the clean slice is far outside (padding, metal) there is nothing to restore, and the noisy one is clipped too.
    """

    scan: StoredScan
    k: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scan.shape

    def __getitem__(self, crop: Any, /) -> NDArray[Any]:
        clean, noisy = (
            self.scan.window.normalised(self.scan.read(name, self.k, _pair(crop))) for name in (TARGET, CONDITION)
        )
        limit = np.where(np.abs(clean) > FAR_OUTSIDE, np.float32(1), np.float32(MOST_NOISY))
        return noisy.clip(-limit, limit)


@dataclass(frozen=True)
class StoredForeground:
    """The foreground of slice k of a scan: ``plane[rows, columns]`` is bool."""

    scan: StoredScan
    k: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scan.shape

    def __getitem__(self, crop: Any, /) -> NDArray[Any]:
        return self.scan.read(TARGET, self.k, _pair(crop)) > self.scan.foreground_above


def _pair(crop: Any) -> tuple[Any, Any]:
    """The (rows, columns) of an index, which may be shorter or hold an ellipsis, as for an array."""
    crop = crop if isinstance(crop, tuple) else (crop,)
    crop = tuple(part for part in crop if part is not Ellipsis)
    return (*crop, slice(None), slice(None))[:2]


def _rows(hashes: list[bytes]) -> NDArray[Any]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 16)


class _OpenFiles:
    """The open files of one process that were used last, and the part that was read last.

    Each process has its own, since an HDF5 handle must not be used after a fork. The last part is kept because the
    foreground of a patch is read before the patch.
    """

    def __init__(self) -> None:
        self.files: OrderedDict[str, tuple[h5py.File, dict[str, h5py.Dataset]]] = OrderedDict()
        self.last: tuple[Any, NDArray[Any]] | None = None

    def read(self, path: str, name: str, crop: tuple[Any, ...]) -> NDArray[Any]:
        """The stored numbers of (slice, rows, columns) of a dataset; do not modify the array."""
        key = (path, name, crop)
        if self.last is None or self.last[0] != key:
            self.last = key, self._datasets(path)[name][crop]
        return self.last[1]

    def _datasets(self, path: str) -> dict[str, h5py.Dataset]:
        if path not in self.files:
            file = h5py.File(path, "r", locking=False)
            self.files[path] = (file, {name: file[name] for name in (TARGET, CONDITION) if name in file})
            if len(self.files) > OPEN_FILES:
                self.files.popitem(last=False)[1][0].close()
        self.files.move_to_end(path)
        return self.files[path][1]


@functools.lru_cache(maxsize=1)
def _open_files(process: int) -> _OpenFiles:
    return _OpenFiles()
