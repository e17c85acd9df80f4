"""The formats beside DICOM: a new one is a module with ``read_MODULE`` and ``write_MODULE``, and one entry here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdm4mi.io.volume import Source, Volume

Reader = Callable[[Path, str], Volume]
Writer = Callable[[Volume, Path, Source | None, np.dtype | None], list[str]]


@dataclass(frozen=True)
class Format:
    """One format, imported when a file of it is met.

    title: for people; module: in ``cdm4mi.io``; endings: of outputs, that of a new file first; magic: the first bytes
    of a file, one of these (none: ``sniff`` looks closer); colour: whether it holds channels.
    """

    title: str
    module: str
    endings: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    colour: bool = False

    @property
    def reader(self) -> Reader:
        """``read(path, name for messages)``."""
        read: Reader = getattr(importlib.import_module(f"cdm4mi.io.{self.module}"), f"read_{self.module}")
        return read

    @property
    def writer(self) -> Writer:
        """``write(volume, path, template, dtype)``; returns notes on what had to be changed."""
        write: Writer = getattr(importlib.import_module(f"cdm4mi.io.{self.module}"), f"write_{self.module}")
        return write


FORMATS = {
    "nifti": Format("NIfTI", "nifti", (".nii.gz", ".nii", ".hdr", ".img")),
    "mha": Format("MHA/MHD", "metaimage", (".mha", ".mhd")),
    "nrrd": Format("NRRD", "nrrd", (".nrrd", ".nhdr"), (b"NRRD000",)),
    "hdf5": Format("HDF5", "hdf5", (".h5", ".hdf5"), (b"\x89HDF\r\n\x1a\n",)),
    "tiff": Format("TIFF", "tiff", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), colour=True),
    "png": Format("PNG", "png", (".png",), (b"\x89PNG\r\n\x1a\n",), colour=True),
}
ENDINGS = {ending: kind for kind, its in FORMATS.items() for ending in its.endings} | dict.fromkeys(
    (".dcm", ".dicom", ".ima"), "dicom"
)
"""Ending of an output -> format."""
MAGIC = {magic: kind for kind, its in FORMATS.items() for magic in its.magic} | dict.fromkeys(
    (b"PK\x03\x04", b"PK\x05\x06"), "zip"
)
"""First bytes of a file -> format."""
