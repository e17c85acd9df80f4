"""Files and folders that appear whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cdm4mi.errors import UserError


def refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over any of the files that were read, or into a folder they lie in."""
    target = path.resolve()
    for source in inputs:
        source = source.resolve()
        if target == source or (path.is_dir() and target in source.parents):
            raise UserError(f"{path}: the output would overwrite its input, expected another place")


@contextmanager
def replacing_file(path: Path, *, durable: bool = False, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, with its ending, that becomes ``path`` when the block ends well.

    durable: for a file with one writer that must outlive a power cut. It is on the disk before it takes its name, and
    what a kill leaves is written over the next time. keep: the name that the file which was there takes.
    Raises UserError where the folder cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file to write")
    _make_parent(path)
    # The ending is kept because writers choose the format by it.
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    temporary = path.with_name(f".{path.stem}.tmp{ending}" if durable else f".cdm4mi-{secrets.token_hex(8)}{ending}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path``, which must not exist or be empty, when the block ends without error."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not an empty folder, expected a new place for the output")
    _make_parent(path)
    temporary = path.with_name(f".cdm4mi-{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}), expected a folder that can be") from None
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written, as its folder cannot; expected one that can be")
