"""One file of a scan, on disk or in memory, as every reader takes it."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cdm4mi.errors import UserError, amount
from cdm4mi.io.arrays import free_space, put, scratch_file

GZIP = b"\x1f\x8b"
"""How a gzip file begins."""
DEFLATE_GAIN = 1040
"""More bytes than deflate can make of one (about 1032): the bound for what the header of a packed file may claim."""


@dataclass(frozen=True)
class ScanFile:
    """The bytes of one file, the name that messages call it by, and the files beside it.

    path: where it lies; None for a content in memory.
    """

    name: str
    path: Path | None = None
    content: bytes = b""

    @property
    def handle(self) -> Path | BinaryIO:
        """What libraries open: the path, or a binary file over the content."""
        return self.path or io.BytesIO(self.content)

    def open(self) -> BinaryIO:
        """The file, opened to read bytes."""
        return io.BytesIO(self.content) if self.path is None else self.path.open("rb")

    def unpacked(self) -> BinaryIO:
        """The file, opened to read what it packs where it is gzip, else its bytes.

        A packed file is read to its end, so that its checksum counts. UserError where it is damaged, or larger than
        half of what is free of the memory, or of the disk where arrays lie in files (``arrays_in``).
        """
        if self.head(len(GZIP)) != GZIP:
            return self.open()
        content = scratch_file() or io.BytesIO()
        what, free = free_space()
        most = free // 2
        try:
            with self.open() as opened, gzip.open(opened) as packed:
                while part := packed.read(2**20):
                    put(content, part)
                    if content.tell() > most:
                        raise UserError(f"{self.name}: unpacks to more than {amount(most)}, half of the free {what}")
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UserError(f"{self.name}: the gzip data are damaged or cut short") from None
        content.seek(0)
        return content

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes, fewer of a shorter file. UserError where it cannot be read."""
        try:
            with self.open() as file:
                return file.read(count)
        except OSError as error:
            raise UserError(f"{self.name}: cannot be read ({error.strerror})") from None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content) if self.path is None else self.path.stat().st_size

    @property
    def paths(self) -> tuple[Path, ...]:
        """The path, if there is one."""
        return () if self.path is None else (self.path,)

    def beside(self, name: str) -> ScanFile:
        """The data file that a header names. Only a plain name in the same folder is followed."""
        if self.path is None or Path(name).name != name or not (self.path.parent / name).is_file():
            raise UserError(
                f"{self.name}: names a data file that is not beside it, expected its header and data in one folder"
            )
        return ScanFile(self.name, self.path.parent / name)


def ending(path: Path) -> str:
    """The ending in lower case; that of a packed file as a whole, ".nii.gz" or ".raw.gz"."""
    parts = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(parts) if parts[-1:] == [".gz"] else "".join(parts[-1:])
