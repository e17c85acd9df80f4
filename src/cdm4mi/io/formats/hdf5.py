"""HDF5 in and out: patch files and folders (``data``), fastMRI image files (``reconstruction_rss`` or ``_esc``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file, replacing_folder
from cdm4mi.io.arrays import HELD, check_memory, converted, empty, limits, planes, release
from cdm4mi.io.formats.format import Format
from cdm4mi.io.geometry import require_independent_axes
from cdm4mi.io.hdf5_file import dataset_of, hdf5_file
from cdm4mi.io.quantise import as_type
from cdm4mi.io.scan_file import DEFLATE_GAIN, ScanFile
from cdm4mi.io.volume import Source, Volume

_DATASETS = ("data", "reconstruction_rss", "reconstruction_esc")
# fastMRI writes an identifier of the patient; the rest of its attributes describe the acquisition.
_PRIVATE_ATTRIBUTES = {"patient_id"}
_CODES = {"i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}


@dataclass
class Hdf5Header:
    """Dataset name, stored shape and attributes of the file; ``names`` of the files where the source is a folder.

    files: where the rest is copied from when it is written: attributes and compression of the data set, and what else
    the file holds; as many as names, or one.
    """

    dataset: str
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    files: list[ScanFile] = field(default_factory=list)

    def anonymous(self) -> Hdf5Header:
        """This header without attributes, and with numbers for names."""
        return Hdf5Header(self.dataset, self.shape, names=[f"{n:06d}.h5" for n in range(1, len(self.names) + 1)])


def read_hdf5(file: ScanFile) -> Volume:
    """Read the image dataset; shapes (rows, columns), (slices, rows, columns) and single channels are understood."""
    array, dtype, header = _read(file)
    affine = np.asarray(header.attributes.get("affine", np.eye(4)), dtype=np.float64)
    warnings = []
    if affine.shape != (4, 4):
        raise UserError(f"{file.name}: affine: found the shape {affine.shape}, expected (4, 4)")
    require_independent_axes(affine, file.name, "affine")
    if "affine" not in header.attributes:
        warnings.append("HDF5 without an affine: 1 mm voxels were assumed")
    modality = header.attributes.get("modality")
    modality = modality if modality in ("CT", "MR", "PT") else "MR" if header.dataset != "data" else None
    units = header.attributes.get("units")
    return Volume(array, affine, modality, Source("hdf5", file.paths, header, dtype), warnings, units or None)


def read_hdf5_folder(files: Sequence[ScanFile]) -> Volume:
    """Read a folder of patch files of one shape as one volume: each file a slice, in the order of the names."""
    first, dtype, of_first = _read(files[0])
    stack = empty((len(files), *first.shape[1:]), np.float32)
    for n, file in enumerate(files):
        array = _read(file)[0]
        if array.shape != first.shape or array.shape[0] != 1:
            raise UserError(
                f"{file.name}: is {array.shape}, the first file {first.shape}, expected one image of one size each"
            )
        stack[n] = array[0]
        release(stack)
    names = [path.name for file in files for path in file.paths]
    if len(set(names)) < len(names):  # files of several folders: none may overwrite another
        names = [f"{n:06d}-{name}" for n, name in enumerate(names, 1)]
    header = Hdf5Header(of_first.dataset, of_first.shape, names=names, files=list(files))
    source = Source("hdf5", tuple(path for file in files for path in file.paths), header, dtype, folder=True)
    return Volume(stack, np.eye(4), None, source, ["HDF5 without an affine: 1 mm voxels"])


def write_hdf5(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write the image dataset with affine, modality and units as attributes; a source folder becomes a folder again."""
    notes: list[str] = []
    header = template.header if template is not None and template.kind == "hdf5" else Hdf5Header("data", volume.shape)
    source = template or volume.source
    stored = as_type(volume.array, dtype or (source.dtype if source else None), dtype is not None, _CODES, notes)
    if header.names and path.suffix.lower() not in (".h5", ".hdf5"):
        with replacing_folder(path) as folder:
            for n, (file_name, plane) in enumerate(zip(header.names, stored, strict=True)):
                before = header.files[n] if header.files else None
                shaped = plane.reshape(header.shape)
                notes += _write(folder / file_name, header, shaped, volume, before, with_affine=False)
        return notes
    shaped = stored.reshape(header.shape) if stored.size == np.prod(header.shape) else stored
    with replacing_file(path) as temporary:
        before = header.files[0] if len(header.files) == 1 else None
        notes += _write(temporary, header, shaped, volume, before, with_affine=True)
    return notes


def _write(
    path: Path, header: Hdf5Header, array: NDArray[Any], volume: Volume, before: ScanFile | None, with_affine: bool
) -> list[str]:
    """Write one file, with all that the file ``before`` holds beside the image. Returns what had to be left out."""
    notes = []
    with hdf5_file(path) as file:
        try:
            if before is not None:
                with h5py.File(before.handle, "r", locking=False) as source:
                    _copy_rest(source, file, header.dataset, array)
        except (OSError, KeyError, RuntimeError, ValueError):
            notes.append("what the HDF5 file holds beside the image was left out: it can no longer be read")
        if header.dataset not in file:
            dataset_of(file, header.dataset, array)
        for key, value in header.attributes.items():
            if key not in _PRIVATE_ATTRIBUTES:
                file.attrs[key] = value
        if "max" in header.attributes:  # fastMRI: greatest value and Euclidean norm of the image
            file.attrs["max"] = limits(array)[1]
        if "norm" in header.attributes:
            file.attrs["norm"] = math.sqrt(
                sum(float(np.square(plane, dtype=np.float64).sum()) for plane in planes(array))
            )
        if with_affine and (volume.kind != "hdf5" or "affine" in header.attributes):
            file.attrs["affine"] = volume.affine
            for key, value in (("modality", volume.modality), ("units", volume.units)):
                if value:
                    file.attrs[key] = value
    return notes


def _copy_rest(source: h5py.File, file: h5py.File, dataset: str, array: NDArray[Any]) -> None:
    """Write ``array`` as the data set with its filters and attributes, and copy what else the file holds (no links)."""
    found = source[dataset]
    chunks = found.chunks if found.chunks is not None and array.shape == found.shape else None
    filters = {key: getattr(found, key) for key in ("compression", "compression_opts", "shuffle", "fletcher32")}
    written = dataset_of(file, dataset, array, chunks=chunks, **filters)
    for key, value in found.attrs.items():
        written.attrs[key] = value
    for key in source:
        if key != dataset and isinstance(source.get(key, getlink=True), h5py.HardLink):
            source.copy(key, file)


def _read(file: ScanFile) -> tuple[NDArray[Any], np.dtype[Any], Hdf5Header]:
    """Pixels (slices, rows, columns) as float32, their stored type, and what is written back."""
    name = file.name
    try:
        with h5py.File(file.handle, "r", locking=False) as opened:
            key = next((key for key in _DATASETS if isinstance(opened.get(key, getlink=True), h5py.HardLink)), None)
            found = None if key is None else opened[key]
            if not isinstance(found, h5py.Dataset):
                held = ", ".join(sorted(opened)[:5]) or "nothing"
                raise UserError(f"{name}: holds {held}, expected a dataset named {', '.join(_DATASETS)}")
            if found.dtype.kind not in "iuf" or found.external is not None or found.is_virtual:
                raise UserError(f"{name}: {key} is {found.dtype}, expected numbers stored in this file")
            shape = tuple(int(n) for n in found.shape)
            compressed = found.id.get_create_plist().get_nfilters() > 0
            stored = min(found.id.get_storage_size(), file.size) // max(1, found.dtype.itemsize)
            for claimed in filter(None, (shape, found.chunks)):
                check_memory(name, claimed, stored, DEFLATE_GAIN if compressed else 1)
            raw = _values(found)
            attributes = {
                k: v for k, v in opened.attrs.items() if isinstance(v, (str, int, float, np.generic, np.ndarray))
            }
    except UserError:
        raise
    except Exception:
        raise UserError(f"{name}: not a readable HDF5 file, or damaged") from None
    while raw.ndim > 3 and 1 in (raw.shape[-1], raw.shape[1]):
        raw = raw[..., 0] if raw.shape[-1] == 1 else raw[:, 0]
    if raw.ndim not in (2, 3, 4):
        raise UserError(f"{name}: {key} has the shape {shape}, expected (rows, columns) or (slices, rows, columns)")
    array = converted(raw[None] if raw.ndim == 2 else raw, np.float32, lambda plane: plane)
    return array, raw.dtype.newbyteorder("="), Hdf5Header(str(key), shape, attributes, files=[file])


def _values(found: h5py.Dataset) -> NDArray[Any]:
    """The values of a data set, of which a few chunks are in memory at a time."""
    raw = empty(found.shape, found.dtype)
    if not raw.ndim:
        return raw
    step = max((found.chunks or (1,))[0], HELD // max(1, raw[0].nbytes), 1)
    for first in range(0, len(raw), step):
        raw[first : first + step] = found[first : first + step]
        release(raw)
    return raw


FORMAT = Format(
    name="hdf5",
    title="HDF5",
    endings=(".h5", ".hdf5"),
    read=read_hdf5,
    write=write_hdf5,
    magic=(b"\x89HDF\r\n\x1a\n",),
    positioned=False,
    read_folder=read_hdf5_folder,
    anonymous=Hdf5Header.anonymous,
)
