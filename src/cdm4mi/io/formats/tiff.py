"""Grey and RGB TIFF images and stacks in and out; geometry and scale stand in the JSON that tifffile writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.formats.format import Format
from cdm4mi.io.formats.raw_data import DEFLATE_GAIN
from cdm4mi.io.quantise import Grid, refine, rescale
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Source, Volume, check_memory


def read_tiff(file: ScanFile) -> Volume:
    """Read pages as slices (or time, slices for four axes). Values are those stored, or scaled as the metadata say.

    RGB is (slices, rows, columns, 3).
    """
    name = file.name
    with tifffile.TiffFile(file.handle) as tiff:
        if not len(tiff.pages):
            raise UserError(f"{name}: has no pages, expected at least one image")
        page = tiff.pages.first
        colour = page.samplesperpixel == 3 and page.photometric == 2
        if not colour and (page.samplesperpixel != 1 or page.photometric not in (0, 1)):
            raise UserError(f"{name}: is a colour or transparent image of another kind, expected grey or RGB")
        series = tiff.series[0]
        shape, dtype = tuple(int(n) for n in series.shape), np.dtype(series.dtype)
        if dtype.kind not in "iuf":
            raise UserError(f"{name}: the pixels are {dtype}, expected numbers")
        gain = 1 if page.compression == 1 else DEFLATE_GAIN
        check_memory(name, shape, file.size // dtype.itemsize + 1, gain)
        metadata = (tiff.shaped_metadata or ({},))[0]
        raw = series.asarray()
        if colour:
            last = raw.ndim - 1 if page.planarconfig == 1 else raw.ndim - 3
            raw = np.moveaxis(raw, last, -1)
            shape = raw.shape[:-1]
    colours = (3,) * colour
    raw = raw.reshape([n for n in shape[:-2] if n != 1] + [*shape[-2:], *colours]) if len(shape) > 2 else raw
    if raw.ndim - colour not in ((2, 3) if colour else (2, 3, 4)):
        raise UserError(f"{name}: has the shape {shape}, expected pages of rows and columns")
    raw = raw[None] if raw.ndim - colour == 2 else raw
    slope, intercept, affine = 1.0, 0.0, np.eye(4)
    notes = []
    try:
        slope, intercept = float(metadata.get("slope", 1.0)), float(metadata.get("intercept", 0.0))
        affine = np.array(metadata.get("affine", affine), dtype=np.float64).reshape(4, 4)
        np.linalg.inv(affine)
    except (TypeError, ValueError, np.linalg.LinAlgError):
        raise UserError(f"{name}: slope, intercept or affine of the description is malformed") from None
    if "affine" not in metadata:
        notes.append("TIFF without an affine: 1 mm voxels were assumed")
    mirror = page.photometric == 0
    array = np.stack([rescale(plane, slope, intercept) for plane in raw.reshape(-1, *shape[-2:], *colours)])
    if mirror:
        notes.append("the TIFF shows small values as white (MINISWHITE): values kept as stored")
    modality, units = metadata.get("modality"), metadata.get("units")
    source = Source("tiff", file.paths, None, dtype.newbyteorder("="), slope, intercept)
    modality = modality if modality in ("CT", "MR", "PT") else None
    units = units if isinstance(units, str) else None
    axis = -1 if colour else None
    return Volume(array.reshape(raw.shape), affine, modality, source, notes, units, channel_axis=axis)


def write_tiff(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write a stack: the source's integers where they hold the values, scaled ones where asked, else float32."""
    notes: list[str] = []
    array = volume.array
    source = template or volume.source
    wanted = dtype or (source.dtype if source is not None and source.dtype is not None else np.dtype(np.float32))
    axes = "TZYX"[-array.ndim :] if volume.channel_axis is None else "ZYXS"
    metadata = {"axes": axes, "affine": volume.affine.tolist()}
    data = array
    if wanted.kind in "iu" and np.isfinite(array).all():
        slope, intercept = (source.slope, source.intercept) if source is not None and dtype is None else (1.0, 0.0)
        candidates = [Grid(wanted, slope, intercept)]
        if dtype is not None:
            low, high = float(array.min()), float(array.max())
            first = Grid(wanted).limits[0]
            step = max((high - low) / (Grid(wanted).limits[1] - first), 1e-30) * (1 + 1e-6)
            candidates.append(Grid(wanted, step, low - first * step))
        grid = refine(array, candidates[:1], only_exact=True) or (candidates[1] if dtype is not None else None)
        if grid is None:
            notes.append(f"stored as float32 instead of {wanted}: it does not hold the values")
        else:
            data = grid.encode(array)
            metadata |= {"slope": grid.slope, "intercept": grid.intercept}
    metadata |= {key: value for key, value in (("modality", volume.modality), ("units", volume.units)) if value}
    with replacing_file(path) as temporary:
        tifffile.imwrite(
            temporary, data, photometric="minisblack" if volume.channel_axis is None else "rgb", metadata=metadata
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
