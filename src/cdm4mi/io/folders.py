"""Folders and files below a folder, each once, through links too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cdm4mi.errors import UserError


def folders_under(root: Path, leave_out: Path | None = None) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder from ``root`` down with its regular files, both in the order of their names.

    Links to folders are followed, and a folder or a file that is met again through a link is passed over; so are hidden
    folders, pipes and dangling links, and the folder ``leave_out``. UserError where a folder cannot be listed.
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
        here, subfolders = _entries(folder, root)
        for path in subfolders:
            (linked if path.is_symlink() else waiting).append(path)
        new = [path for path in here if path.resolve() not in files]
        files.update(path.resolve() for path in new)
        found.append((folder, new))
    yield from sorted(found)


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            named = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        inside = folder.name if folder == root else str(folder.relative_to(root))
        raise UserError(f"{inside}: cannot be listed ({error.strerror})") from None
    files = [Path(entry.path) for entry in named if entry.is_file()]
    return files, [Path(entry.path) for entry in named if entry.is_dir() and not entry.name.startswith(".")]
