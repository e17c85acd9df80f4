"""NIfTI 1 and 2 (.nii, .nii.gz, .hdr/.img) in and out, with the header kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from nibabel.volumeutils import seek_tell
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.arrays import check_memory, converted, count_where, from_file, planes
from cdm4mi.io.formats.format import HEAD, Format
from cdm4mi.io.geometry import LEAST_DETERMINANT, require_independent_axes
from cdm4mi.io.quantise import Grid, fine_enough, refine, rescale
from cdm4mi.io.scan_file import ScanFile, ending
from cdm4mi.io.volume import Source, Volume

_KINDS = {
    b"n+1\0": nib.Nifti1Image, b"ni1\0": nib.Nifti1Pair, b"n+2\0": nib.Nifti2Image, b"ni2\0": nib.Nifti2Pair,
}  # fmt: skip
_ANALYZE = 348
"""Bytes of a header of NIfTI 1 and of Analyze, which it begins with."""
_HEADERS, _DATA = (".hdr", ".hdr.gz"), (".img", ".img.gz")
_NEXT_DTYPES = [np.dtype(t) for t in (np.int16, np.int32)]


def recognise_nifti(head: bytes, file: ScanFile) -> bool:
    """Whether the magic is that of NIfTI 1 (offset 344) or 2 (offset 4), or the file is the data file of a pair."""
    if head[344:348] in _KINDS or head[4:8] in _KINDS:
        return True
    kind = "" if file.path is None else ending(file.path)
    if kind in _HEADERS:  # of Analyze 7.5, which has no magic but its length
        return len(head) >= 4 and _ANALYZE in (int.from_bytes(head[:4], order) for order in ("little", "big"))
    return kind in _DATA and _half(file, _HEADERS) is not None


def read_nifti(file: ScanFile) -> Volume:
    """Read a NIfTI file, or a pair, of 2 to 4 axes; stored axes (i, j, k, t) become (t, k, j, i)."""
    of_pair = file.path is not None and ending(file.path) in _DATA
    headed = (_half(file, _HEADERS) if of_pair else None) or file
    with headed.unpacked() as opened:
        head = opened.read(HEAD)
        opened.seek(0)
        kind = _kind(head, headed)
        warnings = _scaling(kind, head)
        if kind in (nib.Nifti1Image, nib.Nifti2Image):
            return _read(_load(kind, file, {"image": opened}), file.name, file.paths, opened, warnings)
        if file.path is None:
            raise UserError(f"{file.name}: is one of the two files of a NIfTI pair, expected the path of one of them")
        data_file = _half(file, _DATA)
        if data_file is None:
            raise UserError(f"{file.name}: the image data file (.img) that belongs to the header is missing")
        paths = dict.fromkeys((*file.paths, *headed.paths, *data_file.paths))
        with data_file.unpacked() as data:
            image = _load(kind, file, {"header": opened, "image": data})
            return _read(image, file.name, tuple(paths), data, warnings)


def _half(file: ScanFile, endings: tuple[str, ...]) -> ScanFile | None:
    """Of a pair, the file that has one of these endings, first one packed as the given is; None where there is none."""
    assert file.path is not None
    stem = file.path.name[: len(file.path.name) - len(ending(file.path))]
    upper = file.path.suffix.isupper()
    alike = sorted(endings, key=lambda other: Path(other).suffix == ".gz", reverse=file.path.suffix.lower() == ".gz")
    paths = (file.path.with_name(stem + (other.upper() if upper else other)) for other in alike)
    return next((ScanFile(file.name, path) for path in paths if path.is_file()), None)


def _read(image: Any, name: str, paths: tuple[Path, ...], data: BinaryIO, warnings: list[str]) -> Volume:
    header = image.header
    shape = _squeezed_shape(header.get_data_shape(), name)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "colour" if dtype.names else str(dtype)
        raise UserError(f"{name}: the voxels are {what}, expected one grey value each")
    check_memory(name, shape, data.seek(0, os.SEEK_END) // dtype.itemsize)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)  # the header's are reset by nibabel
    try:
        raw = from_file(data, dtype, shape[::-1], int(image.dataobj.offset))
    except Exception as error:
        raise UserError(f"{name}: the image data cannot be read ({_one_line(error)})") from None
    with np.errstate(over="ignore", invalid="ignore"):
        raw = raw[None] if raw.ndim == 2 else raw
        array = converted(raw, np.float32, lambda plane: rescale(plane, slope, intercept))
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        warnings.append("neither qform nor sform is set: the position in the patient is unknown")
    affine = _millimetres(header) @ _affine(image, warnings)
    require_independent_axes(affine, name, "qform or sform")
    source = Source("nifti", paths, header.copy(), dtype, slope, intercept)
    return Volume(array, affine, None, source, warnings)


def write_nifti(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write ``volume``; header fields and stored type come from ``template`` (a NIfTI source). Returns notes.

    The stored type stays where it holds the values finely enough; otherwise the next one that does is taken and noted.
    """
    notes: list[str] = []
    array = volume.array
    source = template if template is not None and template.kind == "nifti" else None
    grid = _grid(array, volume, source, dtype, notes)
    wanted = dtype or (source.dtype if source is not None and source.dtype == np.float64 else None)
    stored_type = np.dtype(np.float32 if wanted is None else wanted) if grid is None else grid.dtype
    shape = array.shape[::-1]
    if source is not None:
        header = source.header.copy()
        if len(header.get_data_shape()) != len(shape):
            shape = header.get_data_shape()
    else:
        header = nib.Nifti1Header() if max(shape) < 2**15 else nib.Nifti2Header()
        header.set_xyzt_units("mm", "sec")
    header.set_data_dtype(stored_type)
    lowered = path.name.lower()
    pair = lowered.endswith((".hdr", ".img", ".hdr.gz", ".img.gz"))
    image_class = _image_class(header, pair)
    affine = np.linalg.inv(_millimetres(header)) @ volume.affine
    image = image_class(np.broadcast_to(np.zeros((), stored_type), shape), None, header)  # its voxels are written below
    if source is None or not np.allclose(header.get_best_affine(), affine, rtol=0, atol=1e-9):
        image.set_sform(affine, 1)
        image.set_qform(affine, 1, strip_shears=True)
        if not np.allclose(image.get_qform(), affine, atol=1e-3):
            image.set_qform(None, 0)  # a sheared stack (gantry tilt) has no rotation alone: only the sform says it
    if stored_type.kind == "f":
        image.header.set_slope_inter(1.0, 0.0)
    else:
        assert grid is not None
        image.header.set_slope_inter(grid.slope, grid.intercept)
    image.header["cal_min"] = image.header["cal_max"] = 0  # the display range of the source need not fit
    _save(image, array, grid, path, pair)
    return notes


def _scaling(kind: Any, head: bytes) -> list[str]:
    """A warning where scl_slope is not finite, which nibabel and NIfTI's own library take for 0: no scaling."""
    layout = kind.header_class
    found = float(layout(head[: layout.template_dtype.itemsize], check=False)["scl_slope"])
    return [] if np.isfinite(found) else [f"scl_slope is {found}: taken as 0, the values are those stored"]


def _millimetres(header: nib.Nifti1Header) -> NDArray[Any]:
    """Matrix (4 x 4) from the header's units of length to millimetres; unknown units count as millimetres."""
    units = int(header["xyzt_units"]) & 7  # 1: metres, 2: millimetres, 3: micrometres
    scale = {1: 1e3, 3: 1e-3}.get(units, 1.0)
    return np.diag([scale, scale, scale, 1.0])


def _affine(image: Any, warnings: list[str]) -> NDArray[Any]:
    """The affine that is set; where it is singular, the other one of sform and qform, with a warning."""
    affine: NDArray[Any] = np.asarray(image.affine, dtype=np.float64)
    if _independent(affine):
        return affine
    for name, other in (("sform", image.get_sform(coded=True)), ("qform", image.get_qform(coded=True))):
        if other[1] and other[0] is not None and _independent(other[0]):
            warnings.append(f"the other of sform and qform is singular: the {name} is used")
            return np.asarray(other[0], dtype=np.float64)
    return affine


def _independent(affine: NDArray[Any]) -> bool:
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) >= LEAST_DETERMINANT


def _stated_axis(volume: Volume) -> int | None:
    """The axis of the array that dim_info calls the slices'."""
    assert volume.source is not None
    stated = volume.source.header.get_dim_info()[2]
    return None if stated is None else 2 - int(stated)


def _kind(head: bytes, file: ScanFile) -> Any:
    """nibabel's class for a file that begins so."""
    kind = _KINDS.get(head[344:348]) or _KINDS.get(head[4:8])
    if kind is None:
        raise UserError(f"{file.name}: is no NIfTI; of Analyze 7.5, which does not tell left from right, expected none")
    return kind


def _load(kind: Any, file: ScanFile, opened: Mapping[str, Any]) -> Any:
    """Load with nibabel from open files: the image, and the header where it is another file."""
    try:
        image = kind.from_file_map({part: nib.FileHolder(fileobj=of) for part, of in opened.items()})
        image.header.get_data_shape()
        image.header.get_data_dtype()
        _ = image.affine
    except Exception as error:
        raise UserError(f"{file.name}: not a readable NIfTI file ({_one_line(error)})") from None
    return image


def _squeezed_shape(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Shape without trailing axes of length 1 beyond the fourth, and without a time axis of length 1."""
    shape = tuple(int(n) for n in shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise UserError(f"{name}: has {len(shape)} axes {shape}, expected 2 to 4")
    return shape


def _grid(
    array: NDArray[Any], volume: Volume, source: Source | None, dtype: np.dtype[Any] | None, notes: list[str]
) -> Grid | None:
    """Choose type, slope and intercept to store integers with; None: store floats."""
    wanted = np.dtype(dtype) if dtype is not None else None
    if wanted is not None and wanted.kind == "f":
        return None
    origin = source or volume.source
    first = wanted or (origin.dtype if origin is not None and origin.dtype is not None else np.dtype(np.float32))
    if first.kind == "f":
        return None
    if count_where(array, lambda plane: ~np.isfinite(plane)):
        notes.append(f"stored as float32 instead of {first}: some values are not finite")
        return None
    slope, intercept = (origin.slope, origin.intercept) if origin is not None else (1.0, 0.0)
    single = lambda x: float(np.float32(x))  # noqa: E731
    tried = [first, *(t for t in _NEXT_DTYPES if t.itemsize > first.itemsize or (t.kind == "i" and first.kind == "u"))]
    for candidate in tried:
        grid = refine(array, [Grid(candidate, slope, intercept)], single)
        if grid is not None and (fine_enough(grid, array, slope) or grid.exact(array)):
            if candidate != first:
                notes.append(f"stored as {candidate} instead of {first}: it does not hold the values finely enough")
            return grid
    notes.append(f"stored as float32 instead of {first}: it does not hold the values finely enough")
    return None


def _image_class(header: nib.Nifti1Header, pair: bool) -> type:
    if isinstance(header, nib.Nifti2Header):
        return nib.Nifti2Pair if pair else nib.Nifti2Image
    return nib.Nifti1Pair if pair else nib.Nifti1Image


def _save(image: Any, array: NDArray[Any], grid: Grid | None, path: Path, pair: bool) -> None:
    """Write the header of ``image``, and the voxels of ``array`` (slowest axis first) as ``grid`` stores them."""
    if not pair:
        with replacing_file(path) as temporary, ImageOpener(os.fspath(temporary), "wb") as file:
            _write(image, array, grid, file, file)
        return
    names = image.filespec_to_file_map(path)
    with (
        replacing_file(Path(names["image"].filename)) as data,
        replacing_file(Path(names["header"].filename)) as head,
        ImageOpener(os.fspath(data), "wb") as data_file,
        ImageOpener(os.fspath(head), "wb") as head_file,
    ):
        _write(image, array, grid, head_file, data_file)


def _write(image: Any, array: NDArray[Any], grid: Grid | None, head: Any, data: Any) -> None:
    image.update_header()
    image.header.write_to(head)
    seek_tell(data, image.header.get_data_offset(), write0=True)
    dtype = image.get_data_dtype()  # in the byte order of the header
    for plane in planes(array):
        data.write((plane if grid is None else grid.encode(plane)).astype(dtype).tobytes())


def _one_line(error: BaseException) -> str:
    """nibabel's message on one line, cut at 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__


FORMAT = Format(
    name="nifti",
    title="NIfTI",
    endings=(".nii.gz", ".nii", *_HEADERS, *_DATA),
    read=read_nifti,
    write=write_nifti,
    recognise=recognise_nifti,
    stated_axis=_stated_axis,
    data_endings=tuple((header, data) for header in _HEADERS for data in _DATA),
)
