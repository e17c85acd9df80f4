"""Grey PNG images of 8 and 16 bits in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cdm4mi.errors import UserError
from cdm4mi.io import atomic
from cdm4mi.io.blob import DEFLATE_GAIN
from cdm4mi.io.quantise import Grid
from cdm4mi.io.volume import Source, Volume, check_memory

_MODES: dict[str, np.dtype] = {
    "L": np.dtype(np.uint8),
    "I;16": np.dtype(np.uint16),
    "I;16B": np.dtype(np.uint16),
    "I": np.dtype(np.uint16),
}


def read_png(path: Path, name: str) -> Volume:
    """One image (1, rows, columns) with its stored grey values, 0 to 255 or 0 to 65535."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            dtype = _MODES.get(image.mode)
            if dtype is None:
                raise UserError(
                    f"{name}: is a PNG of mode {image.mode} (colour or transparent), expected grey of 8 or 16 bits"
                )
            shape = (1, image.height, image.width)
            # Each row has one more byte, and a constant row packs far better than any scan does.
            check_memory(name, shape, path.stat().st_size, DEFLATE_GAIN)
            array = np.asarray(image, dtype=np.float32).reshape(shape)
    except UserError:
        raise
    except Exception:
        raise UserError(f"{name}: not a readable PNG file, or damaged") from None
    warning = "PNG has no geometry and no units: 1 mm pixels were assumed"
    return Volume(array, np.eye(4), None, Source("png", (path,), None, dtype), [warning])


def write_png(volume: Volume, path: Path, template: Source | None, dtype: np.dtype | None = None) -> list[str]:
    """Write one image, rounded and clipped to 8 bits (an 8-bit source, or asked for) or 16 bits."""
    planes = volume.slices()
    source = template or volume.source
    wanted = dtype or (source.dtype if source is not None else None)
    kept = np.dtype(np.uint8) if wanted == np.uint8 else np.dtype(np.uint16)
    grid = Grid(kept)
    if not np.isfinite(planes).all():
        raise UserError(f"{path}: the image holds values that are not finite, which a PNG cannot store")
    low, high = grid.limits
    notes = []
    if planes.min() < low - 0.5 or planes.max() > high + 0.5:
        notes.append(f"values from {planes.min():g} to {planes.max():g} were clipped to {low} to {high}")
    elif not grid.exact(planes):
        notes.append(f"values were rounded to {kept}")
    with atomic.replacing_file(path) as temporary:
        Image.fromarray(grid.encode(planes)[0]).save(temporary, format="PNG")
    return notes
