"""Outputs appear whole or not at all: written beside their place under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
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
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary path (same folder, same ending) that takes the place of ``path`` when the block ends well."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file to write")
    _make_parent(path)
    # The ending is kept because writers choose the format by it.
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    handle, name = tempfile.mkstemp(prefix=".cdm4mi-", suffix=ending, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path``, which must not exist or be empty, when the block ends without error."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not an empty folder, expected a new place for the output")
    _make_parent(path)
    temporary = Path(tempfile.mkdtemp(prefix=".cdm4mi-", dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            path.rmdir()
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be made ({error.strerror}), expected a folder that can be written"
        ) from None
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent}: cannot be written to, expected a folder that can")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
