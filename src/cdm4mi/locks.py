"""One run at a time in a folder or on an output, by a lock that the system drops when its process ends in any way."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.files import check_place, make_folder, writing

if sys.platform != "win32":
    import fcntl

NAME = "cdm4mi.lock"
"""The locked file, in the folder or hidden beside the output: it says who holds it, and is removed at the end."""


@contextmanager
def sole_run(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, for ``command`` of this process while the block runs.

    A lock of POSIX (``lockf``): a killed process leaves none, which a file that is made and removed would; its forked
    workers, which may outlive it by seconds, hold no part of it; and it holds over NFS. Where the file system or the
    system has no such locks, none is held. Raises UserError where another process holds the folder, which it names, or
    where nothing can be written there.
    """
    with _holding(folder / NAME, folder, "one run in it at a time", command):
        yield


@contextmanager
def sole_writer(output: Path, command: str) -> Iterator[None]:
    """Hold the place of one output, a file or a folder, as ``sole_run`` holds a folder: by a file beside it."""
    check_place(output)
    with _holding(output.with_name(f".{output.name}.{NAME}"), output, "one run that writes it at a time", command):
        yield


@contextmanager
def _holding(file: Path, what: Path, expected: str, command: str) -> Iterator[None]:
    """Hold the lock ``file`` of ``what``, which the message names."""
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    make_folder(file.parent)
    descriptor = _locked(file, what, expected)
    try:
        with writing(file):
            os.ftruncate(descriptor, 0)
            now = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
            text = f"process {os.getpid()} on {platform.node()} ({command}, since {now})"
            os.write(descriptor, text.encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: whoever opened it meanwhile finds that it is gone
        os.close(descriptor)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()  # where nothing came of the run


def _locked(file: Path, what: Path, expected: str) -> int:
    """A descriptor of the file, which is locked and still has its name."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror}), expected a place that can be") from None
        if sys.platform == "win32":
            return descriptor
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(f"{what}: in use by {holder}, expected {expected}") from None
        except OSError:
            return descriptor
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        os.close(descriptor)  # removed by its holder between the two
