"""Grey TIFF images and stacks in and out; geometry and scale stand in the JSON description that tifffile writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from cdm4mi.errors import UserError
from cdm4mi.io import atomic
from cdm4mi.io.blob import DEFLATE_GAIN
from cdm4mi.io.quantise import Grid, refine, rescale
from cdm4mi.io.volume import Source, Volume, check_memory


def read_tiff(path: Path, name: str) -> Volume:
    """Read pages as slices (or time, slices for four axes). Values are those stored, or scaled as the metadata say."""
    try:
        with tifffile.TiffFile(path) as tiff:
            if not len(tiff.pages):
                raise UserError(f"{name}: has no pages, expected at least one image")
            page = tiff.pages.first
            if page.samplesperpixel != 1 or page.photometric not in (0, 1):
                raise UserError(f"{name}: is a colour image, expected grey")
            series = tiff.series[0]
            shape, dtype = tuple(int(n) for n in series.shape), np.dtype(series.dtype)
            if dtype.kind not in "iuf":
                raise UserError(f"{name}: the pixels are {dtype}, expected numbers")
            gain = 1 if page.compression == 1 else DEFLATE_GAIN
            check_memory(name, shape, path.stat().st_size // dtype.itemsize + 1, gain)
            said = (tiff.shaped_metadata or ({},))[0]
            raw = series.asarray()
    except UserError:
        raise
    except Exception:
        raise UserError(f"{name}: not a readable TIFF file, or damaged") from None
    raw = raw.reshape([n for n in shape[:-2] if n != 1] + list(shape[-2:])) if len(shape) > 2 else raw
    if raw.ndim not in (2, 3, 4):
        raise UserError(f"{name}: has the shape {shape}, expected pages of rows and columns")
    raw = raw[None] if raw.ndim == 2 else raw
    slope, intercept, affine = 1.0, 0.0, np.eye(4)
    notes = []
    try:
        slope, intercept = float(said.get("slope", 1.0)), float(said.get("intercept", 0.0))
        affine = np.array(said.get("affine", affine), dtype=np.float64).reshape(4, 4)
        np.linalg.inv(affine)
    except (TypeError, ValueError, np.linalg.LinAlgError):
        raise UserError(f"{name}: slope, intercept or affine of the description is malformed") from None
    if "affine" not in said:
        notes.append("TIFF without an affine: 1 mm voxels were assumed")
    mirror = page.photometric == 0
    array = np.stack([rescale(plane, slope, intercept) for plane in raw.reshape(-1, *raw.shape[-2:])])
    if mirror:
        notes.append("the TIFF shows small values as white (MINISWHITE): values kept as stored")
    modality, units = said.get("modality"), said.get("units")
    source = Source("tiff", (path,), None, dtype.newbyteorder("="), slope, intercept)
    modality = modality if modality in ("CT", "MR", "PT") else None
    return Volume(array.reshape(raw.shape), affine, modality, source, notes, units if isinstance(units, str) else None)


def write_tiff(volume: Volume, path: Path, template: Source | None, dtype: np.dtype | None = None) -> list[str]:
    """Write a stack: the source's integers where they hold the values, scaled ones where asked, else float32."""
    notes: list[str] = []
    array = volume.array
    source = template or volume.source
    wanted = dtype or (source.dtype if source is not None and source.dtype is not None else np.dtype(np.float32))
    metadata = {"axes": "TZYX"[-array.ndim :], "affine": volume.affine.tolist()}
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
    metadata |= {key: said for key, said in (("modality", volume.modality), ("units", volume.units)) if said}
    with atomic.replacing_file(path) as temporary:
        tifffile.imwrite(temporary, data, photometric="minisblack", metadata=metadata)
    return notes
