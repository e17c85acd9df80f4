"""The file formats beside DICOM. A new one is a module of this folder that defines FORMAT, and its name in MODULES."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cdm4mi.io.formats.format import Format
from cdm4mi.io.scan_file import ending

MODULES = (
    "nifti",
    "metaimage",
    "nrrd",
    "hdf5",
    "tiff",
    "png",
)
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
"""Of files that are written; each is read with .gz after it too."""


def entries(modules: Iterable[str]) -> Iterator[Format]:
    """The ``FORMAT`` of each of these modules of the folder."""
    for module in modules:
        yield importlib.import_module(f"{__name__}.{module}").FORMAT


FORMATS: dict[str, Format] = {entry.name: entry for entry in entries(MODULES)}
"""Name of a format -> its entry, in the order in which messages list them."""


def readable() -> str:
    """What can be read, in words, for messages."""
    return f"DICOM, {', '.join(entry.title for entry in FORMATS.values())} or a zip of them"


def output_endings() -> dict[str, str]:
    """Ending of an output -> the format that it asks for, "dicom" or a name in FORMATS."""
    named = {end: entry.name for entry in FORMATS.values() for end in entry.endings}
    return named | dict.fromkeys(_DICOM_ENDINGS, "dicom")


def format_of_ending(path: Path) -> str | None:
    """The format that the ending of a path asks for, "dicom" or a name in FORMATS; None: no ending of a format."""
    return output_endings().get(ending(path))


def is_data_file(path: Path) -> bool:
    """Whether the ending is that of voxels whose header is another file (.img, .img.gz, .raw, .zraw, .raw.gz)."""
    return any(ending(path) == data for entry in FORMATS.values() for _, data in entry.data_endings)


def files_of(path: Path) -> tuple[Path, ...]:
    """A file and those beside it that belong to the same image: its voxels, or the header of its voxels."""
    pairs = [pair for entry in FORMATS.values() for pair in entry.data_endings]
    others = [data for header, data in pairs if header == ending(path)]
    others += [header for header, data in pairs if data == ending(path)]
    stem = path.name[: len(path.name) - len(ending(path))]
    beside = (path.with_name(stem + other) for other in others)
    return (path, *(file for file in beside if file.is_file()))


def files_written(path: Path) -> list[Path]:
    """The files that writing ``path`` makes, or may make beside it: an image's header and its voxels."""
    pairs = [pair for entry in FORMATS.values() for pair in entry.data_written or entry.data_endings]
    stem, own = path.name[: len(path.name) - len(ending(path))], ending(path)
    others = [other for header, data in pairs for name, other in ((header, data), (data, header)) if name == own]
    return [path, *(path.with_name(stem + other) for other in others)]


def is_positioned(kind: str | None) -> bool:
    """Whether files of a format say where in the patient a scan lies, so that two grids can be told apart."""
    return kind not in FORMATS or FORMATS[kind].positioned
