"""Grey and RGB TIFF images and stacks in and out; geometry and scale stand in the JSON that tifffile writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io import arrays
from cdm4mi.io.formats.format import Format
from cdm4mi.io.quantise import Grid, refine, rescale
from cdm4mi.io.scan_file import DEFLATE_GAIN, ScanFile
from cdm4mi.io.volume import Source, Volume

# Millimetres of the units that ImageJ and OME name
_MILLIMETRES = {
    "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4, "nm": 1e-6,
    "um": 1e-3, "\u00b5m": 1e-3, "\u03bcm": 1e-3, "\\u00b5m": 1e-3, "micron": 1e-3, "microns": 1e-3,
}  # fmt: skip
_LOSSLESS = (5, 8, 32946)  # LZW and the two numbers of deflate
_CLASSIC = 2**32 - 2**25
"""Bytes of pixels that fit, with what describes them, into a TIFF of 32-bit offsets."""
# What tifffile writes of its own accord for ImageJ, or what the values no longer fit
_IMAGEJ_SHAPE = {
    "ImageJ", "images", "slices", "frames", "channels", "hyperstack", "mode", "axes", "cf", "c0", "c1", "min", "max",
}  # fmt: skip


@dataclass
class TiffHeader:
    """What a file says beside the pixels and is written again: ImageJ's metadata, or tags of the first page.

    white_is_zero: small values are shown as white (MINISWHITE).
    """

    tags: dict[str, Any] = field(default_factory=dict)
    imagej: dict[str, Any] | None = None
    ome: bool = False
    white_is_zero: bool = False


def read_tiff(file: ScanFile) -> Volume:
    """Read all pages as slices (or time, slices for four axes). Values are those stored, or scaled as the metadata say.

    RGB is (slices, rows, columns, 3). Pages written one after the other are slices of one stack; a file whose pages
    differ in size, or that has channels or parts elsewhere, is refused.
    """
    name = file.name
    with tifffile.TiffFile(file.handle) as tiff:
        if not len(tiff.pages):
            raise UserError(f"{name}: has no pages, expected at least one image")
        page = tiff.pages.first
        colour = page.samplesperpixel == 3 and page.photometric == 2
        if not colour and (page.samplesperpixel != 1 or page.photometric not in (0, 1)):
            raise UserError(f"{name}: is a colour or transparent image of another kind, expected grey or RGB")
        _check_pages(tiff, name)
        first, dtype = tiff.series[0], np.dtype(tiff.series[0].dtype)
        if dtype.kind not in "iuf":
            raise UserError(f"{name}: the pixels are {dtype}, expected numbers")
        gain = 1 if page.compression == 1 else DEFLATE_GAIN
        sizes = (len(tiff.series), *(int(n) for n in first.shape))
        arrays.check_memory(name, sizes, file.size // dtype.itemsize + 1, gain)
        metadata = (tiff.shaped_metadata or ({},))[0]
        imagej = tiff.imagej_metadata if tiff.is_imagej else None
        stated = _ome_affine(tiff.ome_metadata) if tiff.is_ome else _imagej_affine(imagej or {}, page)
        raw = _joined((_slices_last(_values(series, file), series, colour, name) for series in tiff.series), sizes[0])
        header = TiffHeader(_tags(tiff, page), imagej, bool(tiff.is_ome), page.photometric == 0)
    raw = raw[0] if raw.ndim - colour == 4 and len(raw) == 1 else raw
    slope, intercept, affine = 1.0, 0.0, np.eye(4)
    notes = []
    try:
        slope, intercept = float(metadata.get("slope", 1.0)), float(metadata.get("intercept", 0.0))
        if imagej is not None and imagej.get("cf") == 0:  # a straight line from stored numbers to values
            slope, intercept = float(imagej["c1"]), float(imagej["c0"])
        affine = np.array(metadata.get("affine", affine if stated is None else stated), dtype=np.float64).reshape(4, 4)
        np.linalg.inv(affine)
        if not np.isfinite([slope, intercept, *affine.ravel()]).all() or slope == 0:
            raise ValueError
    except (KeyError, TypeError, ValueError, np.linalg.LinAlgError):
        raise UserError(f"{name}: slope, intercept or affine of the description is malformed") from None
    if "affine" not in metadata and stated is None:
        notes.append("TIFF without an affine: 1 mm voxels were assumed")
    if any(len(series.levels) > 1 for series in tiff.series):
        notes.append("the TIFF holds smaller copies of the image, which were left out")
    array = arrays.converted(_pages(raw, colour), np.float32, lambda page: rescale(page, slope, intercept))
    if page.photometric == 0:
        notes.append("the TIFF shows small values as white (MINISWHITE): values kept as stored")
    modality, units = metadata.get("modality"), metadata.get("units")
    source = Source("tiff", file.paths, header, dtype.newbyteorder("="), slope, intercept)
    modality = modality if modality in ("CT", "MR", "PT") else None
    units = units if isinstance(units, str) else None
    axis = -1 if colour else None
    return Volume(array.reshape(raw.shape), affine, modality, source, notes, units, channel_axis=axis)


def _check_pages(tiff: tifffile.TiffFile, name: str) -> None:
    """Refuse a file whose pages are not all slices of one stack: nothing of it may be lost in silence."""
    first = tiff.series[0]
    kinds = {(s.shape, s.axes, str(s.dtype), s.keyframe.samplesperpixel, s.keyframe.photometric) for s in tiff.series}
    if len(kinds) > 1:
        sizes = ", ".join(sorted({" x ".join(str(n) for n in s.shape) + f" {s.dtype}" for s in tiff.series}))
        raise UserError(f"{name}: holds images of {len(kinds)} kinds ({sizes}), expected pages of one size and type")
    if any(s.is_multifile or any(page is None for page in s.pages) for s in tiff.series):
        raise UserError(f"{name}: is a part of an image whose other pages are in other files, expected one whole file")
    if sum(len(s.pages) for s in tiff.series) < len(tiff.pages):
        raise UserError(f"{name}: has {len(tiff.pages)} pages, of which some belong to no image, expected one stack")
    channels = [n for axis, n in zip(first.axes, first.shape, strict=True) if axis == "C"]
    if channels and channels[0] > 1:
        raise UserError(f"{name}: has {channels[0]} channels, expected one grey value (or RGB) a pixel")


def _values(series: tifffile.TiffPageSeries, file: ScanFile) -> NDArray[Any]:
    """The pixels of a series in its own shape: a map of the file where they lie plain in it, else decoded by page."""
    dtype, shape = np.dtype(series.dtype), tuple(int(n) for n in series.shape)
    if series.dataoffset is not None:
        order = series.keyframe.parent.byteorder
        with file.open() as opened:
            return arrays.from_file(opened, dtype.newbyteorder(order), shape, series.dataoffset)
    raw = arrays.empty((len(series.pages), series.keyframe.size), dtype)
    step = max(1, arrays.HELD // raw[0].nbytes)
    for n, page in enumerate(series.pages):
        assert page is not None  # refused before
        values = page.asarray()
        raw[n] = (values if series.transform is None else series.transform(values)).reshape(-1)
        if n % step == 0:
            arrays.release(raw)
    return raw.reshape(shape)


def _joined(parts: Iterator[NDArray[Any]], count: int) -> NDArray[Any]:
    """Series of one shape, written one after the other, as one array. One of them is open at a time."""
    first = next(parts)
    if count == 1:
        return first
    joined = arrays.empty((count * len(first), *first.shape[1:]), first.dtype)
    out = arrays.planes(joined)
    for part in chain([first], parts):
        for plane in arrays.planes(part):
            next(out)[...] = plane
    return joined


def _pages(array: NDArray[Any], colour: bool) -> NDArray[Any]:
    """An array of slices as (pages, rows, columns), the colours of a pixel in neighbouring columns."""
    rows = array.shape[-3] if colour else array.shape[-2]
    return arrays.contiguous(array, array.dtype).reshape(-1, rows, array.shape[-1] * (array.shape[-2] if colour else 1))


def _slices_last(raw: NDArray[Any], series: tifffile.TiffPageSeries, colour: bool, name: str) -> NDArray[Any]:
    """The pixels of a series (slices, rows, columns) or (time, slices, rows, columns), colour last."""
    axes = series.axes
    if colour:
        raw, axes = np.moveaxis(raw, axes.index("S"), -1), axes.replace("S", "")
    long = [n for n, length in enumerate(raw.shape[: len(axes) - 2]) if length > 1]
    long.sort(key=lambda n: axes[n] != "T")  # time before everything else
    if len(long) > (1 if colour else 2):
        raise UserError(f"{name}: has the axes {axes} of {series.shape}, expected pages of rows and columns")
    ones = [n for n in range(len(axes) - 2) if n not in long]
    raw = raw.transpose([*ones, *long, *range(len(axes) - 2, raw.ndim)]).reshape(
        *(raw.shape[n] for n in long), *raw.shape[len(axes) - 2 :]
    )
    return raw if raw.ndim - colour > 2 else raw[None]


def _tags(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, Any]:
    """Arguments of ``imwrite`` for what the first page says: description, resolution, date, lossless compression."""
    tags: dict[str, Any] = {}
    own = tiff.is_imagej or tiff.is_ome or page.description.startswith('{"shape"')
    if page.description and not own and page.description.isascii():
        tags["description"] = page.description
    if "XResolution" in page.tags and "YResolution" in page.tags:
        tags["resolution"] = page.tags["XResolution"].value, page.tags["YResolution"].value
        tags["resolutionunit"] = int(page.resolutionunit)
    if "DateTime" in page.tags and isinstance(page.tags["DateTime"].value, str):
        tags["datetime"] = page.tags["DateTime"].value
    if page.compression in _LOSSLESS:
        tags["compression"] = int(page.compression)
    return tags


def _imagej_affine(imagej: dict[str, Any], page: tifffile.TiffPage) -> NDArray[Any] | None:
    """Voxel sizes of ImageJ (pixels a unit in the resolution, the spacing of slices in the description), or None."""
    scale = _MILLIMETRES.get(str(imagej.get("unit", "")).lower())
    across, down = page.resolution
    if scale is None or not (across > 0 and down > 0):
        return None
    spacing = imagej.get("spacing", 1.0)
    return np.diag([scale / across, scale / down, scale * abs(spacing) if isinstance(spacing, float) else 1.0, 1.0])


def _ome_affine(xml: str | None) -> NDArray[Any] | None:
    """Voxel sizes of OME (PhysicalSizeX, Y, Z), or None."""
    image = tifffile.xml2dict(xml or "").get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    sizes = []
    for axis in "XYZ":
        size = pixels.get(f"PhysicalSize{axis}")
        scale = _MILLIMETRES.get(str(pixels.get(f"PhysicalSize{axis}Unit", "um")).lower())
        if isinstance(size, (int, float)) and size > 0 and scale is not None:
            sizes.append(scale * size)
        elif axis != "Z":
            return None
    return np.diag([*sizes, *[1.0] * (4 - len(sizes))])


def write_tiff(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write a stack: the source's integers where they hold the values, scaled ones where asked, else floats."""
    notes: list[str] = []
    array = volume.array
    source = template or volume.source
    wanted = dtype or (source.dtype if source is not None and source.dtype is not None else np.dtype(np.float32))
    axes = "TZYX"[-array.ndim :] if volume.channel_axis is None else "ZYXS"
    header = template.header if template is not None and template.kind == "tiff" else TiffHeader()
    scale: dict[str, float] = {}
    colour = volume.channel_axis is not None
    pages = _pages(array, colour)
    stored = arrays.converted(pages, wanted, lambda page: page) if wanted == np.float64 else pages
    if wanted.kind in "iu" and not arrays.count_where(pages, lambda page: ~np.isfinite(page)):
        slope, intercept = (source.slope, source.intercept) if source is not None and dtype is None else (1.0, 0.0)
        candidates = [Grid(wanted, slope, intercept)]
        if dtype is not None:
            low, high = arrays.limits(pages)
            first = Grid(wanted).limits[0]
            step = max((high - low) / (Grid(wanted).limits[1] - first), 1e-30) * (1 + 1e-6)
            candidates.append(Grid(wanted, step, low - first * step))
        grid = refine(pages, candidates[:1], only_exact=True) or (candidates[1] if dtype is not None else None)
        if grid is None:
            notes.append(f"stored as float32 instead of {wanted}: it does not hold the values")
        else:
            stored = arrays.converted(pages, wanted, grid.encode)
            scale = {"slope": grid.slope, "intercept": grid.intercept}
    if header.ome:
        notes.append("the OME description of the source was left out; voxel sizes are kept")
    if header.imagej is not None and stored.dtype.str[1:] in ("u1", "u2", "f4") and not colour:
        metadata = {key: value for key, value in header.imagej.items() if key not in _IMAGEJ_SHAPE}
        if scale and (scale["slope"], scale["intercept"]) != (1.0, 0.0):
            metadata |= {"cf": 0, "c0": scale["intercept"], "c1": scale["slope"]}
        settings: dict[str, Any] = {"imagej": True}
    else:
        metadata = {"affine": volume.affine.tolist(), **scale}
        metadata |= {key: value for key, value in (("modality", volume.modality), ("units", volume.units)) if value}
        grey = "miniswhite" if header.white_is_zero else "minisblack"
        settings = {"photometric": "rgb" if colour else grey}
    with replacing_file(path) as temporary:
        tifffile.imwrite(
            temporary,
            arrays.planes(stored),
            shape=array.shape,
            dtype=stored.dtype,
            bigtiff=stored.nbytes > _CLASSIC and "imagej" not in settings,  # ImageJ reads on beyond them
            buffersize=arrays.HELD,
            metadata={"axes": axes, **metadata},
            **settings,
            **header.tags,
        )
    return notes


FORMAT = Format(
    name="tiff",
    title="TIFF",
    endings=(".tif", ".tiff"),
    read=read_tiff,
    write=write_tiff,
    magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    colour=True,
    positioned=False,
)
