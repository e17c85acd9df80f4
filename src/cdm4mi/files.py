"""Files and folders that appear whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cdm4mi.errors import UserError, amount

TEMPORARY = ".cdm4mi-"
"""How the names of files and folders begin that are being written."""
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_active: set[str] = set()
"""The temporary names that this process writes to now."""


class Taken(UserError):
    """Something else is in the place of an output."""


def readable(text: str) -> str:
    """The text with each byte of a file name that is no UTF-8 (a surrogate, in Python) as an escape: ``\\udcfc``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over any of the files that were read, or into a folder they lie in."""
    target = path.resolve()
    for source in inputs:
        source = source.resolve()
        if target == source or (path.is_dir() and target in source.parents):
            raise UserError(f"{path}: the output would overwrite its input, expected another place")


def make_folder(folder: Path) -> None:
    """Make a folder with its parents where it is not there. Raises UserError where files cannot be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}), expected a folder to write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to, expected a folder that can be")


def below(folder: Path, name: str) -> Path:
    """The path of a file or folder of this name in ``folder``. Raises UserError for a name that leads out of it."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise UserError(f"name: found {name!r}, expected one of a place inside {folder}")
    return folder / path


def check_place(path: Path, size: int = 0) -> None:
    """Raise UserError where a file or folder ``path`` of so many bytes cannot be made: a check before long work."""
    if path.name in ("", ".."):
        raise UserError(f"{path}: names no file and no folder of its own, expected a new name for the output")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written, as {folder} cannot; expected a folder that can be")
    if (free := shutil.disk_usage(folder).free) < size:
        raise UserError(f"{path}: the disk of {folder} has {amount(free)} free, expected at least {amount(size)}")


def refuse_taken(path: Path, *, folder: bool) -> None:
    """Raise Taken where nothing can take the place of ``path``: for a file a folder; for that all but an empty one."""
    if not folder and path.is_dir():
        raise Taken(f"{path}: is a folder, expected the name of a file to write")
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Taken(f"{path}: exists and is not an empty folder, expected a new place for the output")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make a UserError that names ``path`` of a full disk, or another reason why writing fails, within the block."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = disk_error(error)
        if reason is None:
            raise
        why = getattr(reason, "strerror", None) or reason
        raise UserError(f"{path}: cannot be written ({why}), expected a disk with room for it") from None


def disk_error(error: BaseException) -> BaseException | None:
    """What says that a disk took no more, of an error and those that it was raised over; None where none does."""
    return underlying(error, _of_disk)


def underlying(error: BaseException, sought: Callable[[BaseException], bool]) -> BaseException | None:
    """What is sought of an error and those that it was raised over: torch raises a RuntimeError of its own over any."""
    reason: BaseException | None = error
    while reason is not None and not sought(reason):
        reason = reason.__context__
    return reason


def _of_disk(error: BaseException) -> bool:
    """Whether an error says that a disk took no more; NumPy's of an array does so without a number."""
    return isinstance(error, OSError) and (error.errno in _UNWRITABLE or " requested and " in str(error))


@contextmanager
def replacing_file(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, with its ending, that becomes ``path`` when the block ends well.

    It is on the disk before it takes its name, so that the file outlives a power cut; what a killed run left in the
    folder is removed. keep: the name that the file takes which was there. Raises UserError where the folder cannot be
    written to, or the disk is full.
    """
    refuse_taken(path, folder=False)
    # The ending is kept because writers choose the format by it.
    with _temporary(path, ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix) as temporary:
        with writing(path):
            yield temporary
            _to_disk(temporary)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        _to_disk(path.parent, deep=False)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path``, which must not exist or be empty, when the block ends without error."""
    refuse_taken(path, folder=True)
    with _temporary(path) as temporary:
        with writing(path):
            temporary.mkdir()
            yield temporary
            _to_disk(temporary)
        _take_place(temporary, path)


@contextmanager
def replacing_together(*paths: Path, before: Callable[[], None] = lambda: None) -> Iterator[list[Path]]:
    """Temporary paths with the names of outputs that belong together, which take their places when the block ends well.

    paths: of a file or a folder each; what is written beside its temporary path (a record, the voxels of a header)
    takes its place beside it, first. They follow each other in this order, so that whoever finds the last has all.
    before: called when all is written and nothing has moved; what it raises leaves every place as it is.
    """
    with ExitStack() as stack:
        folders = [stack.enter_context(_temporary(path)) for path in paths]
        for folder, path in zip(folders, paths, strict=True):
            with writing(path):
                (folder / path.name if path.is_dir() else folder).mkdir(parents=True)
        try:
            with writing(paths[-1]):
                yield [folder / path.name for folder, path in zip(folders, paths, strict=True)]
        except UserError as error:
            message = str(error)
            for folder, path in zip(folders, paths, strict=True):
                message = message.replace(str(folder / path.name), str(path)).replace(str(folder), str(path.parent))
            raise UserError(message) from None
        for folder, path in zip(folders, paths, strict=True):
            with writing(path):
                _to_disk(folder)
        places = [
            (written, path.parent / written.name)
            for folder, path in zip(folders, paths, strict=True)
            for written in sorted(folder.iterdir(), key=lambda written: written.name == path.name)
        ]
        before()
        for written, place in places:
            refuse_taken(place, folder=written.is_dir())
        for written, place in places:
            _take_place(written, place)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder`` whose process has ended on this machine."""
    for left in list(folder.glob(f"{TEMPORARY}*")):
        import psutil  # seldom needed

        host, _, process = left.name.removeprefix(TEMPORARY).partition("-")
        number = process.partition("-")[0]
        if host != _host() or not number.isdigit() or left.name in _active:
            continue
        if int(number) == os.getpid() or not psutil.pid_exists(int(number)):
            _remove(left)


@contextmanager
def _temporary(path: Path, ending: str = "") -> Iterator[Path]:
    """A free name beside ``path``, of which nothing is left when the block ends."""
    make_folder(path.parent)
    remove_abandoned(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(8)}{ending}")
    _active.add(temporary.name)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _active.discard(temporary.name)


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _take_place(written: Path, path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    os.replace(written, path)
    _to_disk(path.parent, deep=False)


def _to_disk(path: Path, deep: bool = True) -> None:
    """Wait until a file, or a folder with what is in it, is on the disk."""
    if path.is_dir():
        for part in path.iterdir() if deep else ():
            _to_disk(part)
        if os.name == "nt":
            return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that know no fsync of a folder
            raise
    finally:
        os.close(descriptor)
