"""What a file format is to the rest of the package: how its files are recognised, read and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io.padding import nan_as_padding
from cdm4mi.io.planes import acquired
from cdm4mi.io.quantity import quantity_of_name
from cdm4mi.io.scan_file import ScanFile
from cdm4mi.io.volume import Source, Volume

HEAD = 1024
"""How many first bytes of a file a format is recognised by."""


@dataclass(frozen=True)
class Format:
    """One file format (DICOM, whose scans are many files, is apart).

    Args:
        name: the ``Source.kind`` of its volumes, and its name in Python and in records.
        title: its name for people.
        endings: of the files that are written, the usual one first.
        read: ``read(file)`` gives the volume; raises UserError for what is not understood, anything for damage.
        write: ``write(volume, path, template, dtype)`` returns notes on what had to be changed. The template is the
            source whose header is kept, or None.
        magic: a file begins with one of these.
        recognise: ``recognise(first HEAD bytes, file)``, where the magic does not suffice. The bytes of a packed file
            are unpacked before, for a format with an ending in .gz.
        check: ``check(volume, path)`` raises UserError for what the format cannot hold, before long work.
        colour: whether it holds red, green and blue.
        positioned: whether its files say where in the patient the scan lies; False where most of them do not.
        nan: whether it can hold NaN.
        stated_axis: ``stated_axis(volume)`` is the axis of the slices that its header names, or None.
        data_endings: (ending of a header, ending of a file beside it that can hold its voxels).
        data_written: those of ``data_endings`` that the writer gives; None: all.
        read_folder: ``read_folder(files)`` makes one volume of a folder of one-slice files.
        anonymous: what is left of a header that must name nobody; None: nothing.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    read: Callable[[ScanFile], Volume]
    write: Callable[[Volume, Path, Source | None, np.dtype[Any] | None], list[str]]
    magic: tuple[bytes, ...] = ()
    recognise: Callable[[bytes, ScanFile], bool] = lambda head, file: False
    check: Callable[[Volume, Path], None] = lambda volume, path: None
    colour: bool = False
    positioned: bool = True
    nan: bool = True
    stated_axis: Callable[[Volume], int | None] = lambda volume: None
    data_endings: tuple[tuple[str, str], ...] = ()
    data_written: tuple[tuple[str, str], ...] | None = None
    read_folder: Callable[[Sequence[ScanFile]], Volume] | None = None
    anonymous: Callable[[Any], Any] = lambda header: None

    def load(self, file: ScanFile) -> Volume:
        """Read a file. UserError for one that no reader understands, whatever the library in use makes of it."""
        try:
            volume = self.read(file)
            volume = nan_as_padding(volume, file.name)
            volume.quantity = quantity_of_name(file.name)
            return acquired(volume, self.stated_axis(volume)) if self.positioned else volume
        except UserError:
            raise
        except MemoryError:
            raise UserError(f"{file.name}: does not fit into memory") from None
        except Exception as error:
            raise UserError(f"{file.name}: not a readable {self.title} file, or damaged") from error
