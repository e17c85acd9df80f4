"""PNG images in and out: grey of 8 and 16 bits, colour of 8."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.io.arrays import check_memory
from cdm4mi.io.formats.format import Format
from cdm4mi.io.quantise import Grid
from cdm4mi.io.scan_file import DEFLATE_GAIN, ScanFile
from cdm4mi.io.volume import Source, Volume

_MODES: dict[str, np.dtype[Any]] = {
    "L": np.dtype(np.uint8),
    "I;16": np.dtype(np.uint16),
    "I;16B": np.dtype(np.uint16),
    "I": np.dtype(np.uint16),
}
_MAGIC = b"\x89PNG\r\n\x1a\n"
_DEPTH_AT = 24
"""Where a PNG says how many bits a sample has; Pillow makes 8 of 16 in colour without a word."""


def read_png(file: ScanFile) -> Volume:
    """Read one image: (1, rows, columns) of grey values 0 to 255 or 0 to 65535, or (1, rows, columns, 3) of colour."""
    depth = file.head(_DEPTH_AT + 1)[-1]
    _check_chunks(file)
    with Image.open(file.handle, formats=["PNG"]) as image:
        colour = image.mode == "RGB" and depth == 8 and "transparency" not in image.info
        dtype = np.dtype(np.uint8) if colour else _MODES.get(image.mode)
        if dtype is None:
            found = "RGB of 16 bits" if image.mode == "RGB" and depth == 16 else f"mode {image.mode}"
            raise UserError(
                f"{file.name}: is a PNG of {found} (or transparent), expected grey of 8 or 16 bits, or RGB of 8"
            )
        shape = (1, image.height, image.width) + (3,) * colour
        # Each row has one more byte, and a constant row packs far better than any scan does.
        check_memory(file.name, shape, file.size, DEFLATE_GAIN)
        array = np.asarray(image, dtype=np.float32).reshape(shape)
    warning = "PNG has no geometry and no units: 1 mm pixels were assumed"
    source = Source("png", file.paths, None, dtype)
    return Volume(array, np.eye(4), None, source, [warning], channel_axis=-1 if colour else None)


def _check_chunks(file: ScanFile) -> None:
    """Refuse a file of which a part does not fit its checksum; Pillow looks at that of the header's parts alone."""
    with file.open() as opened:
        opened.seek(len(_MAGIC))
        while head := opened.read(8):
            length = int.from_bytes(head[:4], "big")
            data = opened.read(min(length, file.size))
            if len(data) < length or zlib.crc32(head[4:] + data).to_bytes(4, "big") != opened.read(4):
                raise UserError(f"{file.name}: the PNG is damaged or cut short (a checksum does not fit)")
            if head[4:] == b"IEND":
                return


def _check(volume: Volume, path: Path) -> None:
    if volume.channels > 1 and (volume.source is None or volume.source.dtype != np.uint8):
        found = str(volume.source.dtype) if volume.source is not None else "float32"
        raise UserError(f"{path}: a colour PNG has 8 bits here, the image is {found}, expected .tif")
    if len(volume.slices()) != 1:
        raise UserError(
            f"{path}: a PNG holds one image, the volume has {len(volume.slices())} slices, expected another format"
        )


def write_png(volume: Volume, path: Path, template: Source | None, dtype: np.dtype[Any] | None = None) -> list[str]:
    """Write one image, rounded and clipped to 8 bits (colour, an 8-bit source, or asked for) or 16 bits."""
    planes = volume.slices()
    source = template or volume.source
    wanted = dtype or (source.dtype if source is not None else None)
    kept = np.dtype(np.uint8) if wanted == np.uint8 or volume.channels > 1 else np.dtype(np.uint16)
    grid = Grid(kept)
    low, high = grid.limits
    notes = []
    if planes.min() < low - 0.5 or planes.max() > high + 0.5:
        notes.append(f"values from {planes.min():g} to {planes.max():g} were clipped to {low} to {high}")
    elif not grid.exact(planes):
        notes.append(f"values were rounded to {kept}")
    with replacing_file(path) as temporary:
        Image.fromarray(grid.encode(planes)[0]).save(temporary, format="PNG")
    return notes


FORMAT = Format(
    name="png",
    title="PNG",
    endings=(".png",),
    read=read_png,
    write=write_png,
    magic=(_MAGIC,),
    check=_check,
    colour=True,
    positioned=False,
    nan=False,
)
