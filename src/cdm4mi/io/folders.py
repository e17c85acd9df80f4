"""Folders and files below a folder, each once, through links too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cdm4mi.errors import UserError


class Unlisted(UserError):
    """A folder that cannot be listed, and why not."""

    def __init__(self, folder: Path, why: str) -> None:
        self.folder, self.why = folder, why
        super().__init__(f"{folder}: {why}")


def folders_under(
    root: Path, leave_out: Path | None = None, unlisted: list[Unlisted] | None = None
) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder from ``root`` down with its regular files, both in the order of their names.

    Links to folders are followed, and a folder or a file that is met again through a link is passed over; so are hidden
    folders, pipes and dangling links, and the folder ``leave_out``. Raises Unlisted for a folder that cannot be listed,
    or, where a list is given, adds it there and goes on.
    """
    # Real folders first: what lies below the root as itself is named so, and not by a link to it.
    seen = set() if leave_out is None else {leave_out.resolve()}
    waiting = [root]
    linked: list[Path] = []
    files: set[Path] = set()
    found: list[tuple[Path, list[Path]]] = []
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            here, subfolders = _entries(folder)
        except Unlisted as error:
            if unlisted is None:
                raise
            unlisted.append(error)
            continue
        for path in subfolders:
            (linked if path.is_symlink() else waiting).append(path)
        new = [path for path in here if path.resolve() not in files]
        files.update(path.resolve() for path in new)
        found.append((folder, new))
    yield from sorted(found)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            named = sorted(entries, key=lambda entry: entry.name)
        files = [Path(entry.path) for entry in named if entry.is_file()]
        return files, [Path(entry.path) for entry in named if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise Unlisted(folder, f"cannot be listed ({error.strerror})") from None
