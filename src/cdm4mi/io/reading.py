"""Read a scan of any format from a path, from bytes or from an open binary file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cdm4mi.errors import UserError
from cdm4mi.io.listing import Listing, ScanInfo, list_file, list_scans
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Volume


def read(
    scan: str | os.PathLike[str] | bytes | BinaryIO, series: int | str | None = None, *, format: str | None = None
) -> Volume:
    """Read one scan: a path (a file, a folder, a DICOMDIR or a zip), the bytes of a file, or an open binary file.

    The format follows from the content. ``Volume.warnings`` names what is irregular.

    Args:
        series: where there are several scans, the listed number of one (``list_scans``).
        format: of a file whose content does not tell: "dicom", "nifti", "mha", "nrrd", "hdf5", "tiff", "png" or "zip".

    Raises:
        UserError: for what cannot be read rightly, with the reason; where there are several scans, with the list.
    """
    if isinstance(scan, (str, os.PathLike)):
        path = Path(scan)
        name = path.name or str(path)
        listing = list_scans(path) if format is None else list_file(ScanFile(name, path), format)
    else:
        name, listing = _in_memory(scan, format)
    volume = listing.choose(name, series).load()
    if counted := listing.counted(without="other files"):
        volume.warnings.append(f"passed over: {counted}")
    return volume


def read_all(path: str | Path) -> Iterator[tuple[ScanInfo, Volume]]:
    """Every scan of a path, one after the other (only one is held in memory)."""
    for info in list_scans(path).scans:
        yield info, info.load()


def _in_memory(scan: bytes | BinaryIO, format: str | None) -> tuple[str, Listing]:
    """What messages call the bytes or the open file, and the scans in it."""
    name = "the given bytes"
    if not isinstance(scan, (bytes, bytearray, memoryview)):
        named = getattr(scan, "name", None)
        name = Path(named).name if isinstance(named, str) else "the given file"
        scan = scan.read()
        if isinstance(scan, str):
            raise UserError(f"{name}: found a file that was opened as text, expected one opened as binary")
    return name, list_file(ScanFile(name, content=bytes(scan)), format)
