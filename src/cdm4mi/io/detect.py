"""Which format a file has, by its first bytes and never by its ending alone."""

from __future__ import annotations

import zlib

from cdm4mi.io.dicom.instance import looks_like_dicom
from cdm4mi.io.formats import FORMATS
from cdm4mi.io.formats.format import HEAD
from cdm4mi.io.scan_file import GZIP, ScanFile


def detect(file: ScanFile) -> str | None:
    """The format of a file: "dicom", "zip", a name in FORMATS, or None. Raises UserError where it cannot be read."""
    head = file.head(HEAD)
    if looks_like_dicom(head):
        return "dicom"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    entries = list(FORMATS.values())
    if head.startswith(GZIP):
        entries = [entry for entry in entries if any(ending.endswith(".gz") for ending in entry.endings)]
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD)
        except zlib.error:
            return None
        if looks_like_dicom(head):
            return "dicom"
    by_magic = (entry.name for entry in entries if head.startswith(entry.magic))
    closer = (entry.name for entry in entries if entry.recognise(head, file))
    return next(by_magic, None) or next(closer, None)
