"""Which format a file has, told from its first bytes, and its ending."""

from __future__ import annotations

import zlib
from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.io.metaimage import looks_like_metaimage
from cdm4mi.io.registry import MAGIC

HEAD = 1024


def sniff(path: Path, name: str) -> str | None:
    """The format ("nifti", "mha", "zip" ...) or None. DICOM is told by ``dicom_scan.looks_like_dicom``."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD)
        except zlib.error:
            return None
        return "nifti" if is_nifti(head) else None
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if is_nifti(head):
        return "nifti"
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
        return "nifti"
    return "mha" if looks_like_metaimage(head) else None


def is_nifti(head: bytes) -> bool:
    """The magic of NIfTI 1 (offset 344) or 2 (offset 4), as one file or as the header of a pair."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def ending(path: Path) -> str:
    """The ending in lower case, ".nii.gz" as a whole."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
