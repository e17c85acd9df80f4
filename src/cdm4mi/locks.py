"""One run at a time in a folder, by a lock that the system drops when its process ends, however it ends."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cdm4mi.errors import UserError
from cdm4mi.files import make_folder, writing

if sys.platform != "win32":
    import fcntl

NAME = "cdm4mi.lock"
"""The file that is locked, in the folder; it says who holds it, and is removed at the end."""


@contextmanager
def sole_run(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, for ``command`` of this process while the block runs.

    A lock of POSIX (``lockf``): a killed process leaves none, which a file that is made and removed would; its forked
    workers, which may outlive it by seconds, hold no part of it; and it holds over NFS. Where the file system or the
    system has no such locks, none is held. Raises UserError where another process holds the folder, which it names, or
    where nothing can be written there.
    """
    made = not folder.exists()
    make_folder(folder)
    file = folder / NAME
    descriptor = _locked(file)
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
        if made:
            with suppress(OSError):
                folder.rmdir()  # where nothing came of the run


def _locked(file: Path) -> int:
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
            raise UserError(f"{file.parent}: in use by {holder}, expected one run in it at a time") from None
        except OSError:
            return descriptor
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        os.close(descriptor)  # removed by its holder between the two
