"""Which format a file has, told from its first bytes; and which format an output's ending asks for."""

from __future__ import annotations

import zlib
from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.io.metaimage import looks_like_metaimage

HEAD = 1024
# Ending of an output -> format
ENDINGS = {
    ".nii": "nifti", ".nii.gz": "nifti", ".hdr": "nifti", ".img": "nifti", ".dcm": "dicom", ".dicom": "dicom",
    ".ima": "dicom", ".mha": "mha", ".mhd": "mha", ".nrrd": "nrrd", ".nhdr": "nrrd", ".h5": "hdf5", ".hdf5": "hdf5",
    ".tif": "tiff", ".tiff": "tiff", ".png": "png",
}  # fmt: skip
_MAGIC = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x89HDF\r\n\x1a\n": "hdf5", b"NRRD000": "nrrd",
    b"\x89PNG\r\n\x1a\n": "png", b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
}  # fmt: skip


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
    for magic, kind in _MAGIC.items():
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
