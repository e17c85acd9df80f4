"""Write a volume in the format of the output's ending, with the headers of the scan that it was read from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.files import Taken, check_place, refuse_inputs, refuse_taken
from cdm4mi.io import geometry
from cdm4mi.io.arrays import count_where
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.deidentify import Deidentification, deidentification
from cdm4mi.io.dicom.mosaic import mosaic_of
from cdm4mi.io.dicom.write import check_sources, write_dicom
from cdm4mi.io.formats import FORMATS, files_written, format_of_ending, is_positioned, output_endings
from cdm4mi.io.padding import padding_as_nan
from cdm4mi.io.planes import as_stored
from cdm4mi.io.quiet import quiet
from cdm4mi.io.volume import Source, Volume

GAIN = 10
"""What compression makes of float32 at best, in a check of the disk before the work."""
_OTHER_FILES = {
    ".jpg", ".jpeg", ".bmp", ".gif", ".zip", ".gz", ".tar", ".tgz", ".npy", ".npz", ".mat", ".txt", ".json", ".csv",
    ".pdf", ".xml", ".yaml", ".vtk", ".mnc", ".par", ".rec", ".raw", ".ckpt",
}  # fmt: skip
"""Endings of files that are not written here: what has one is meant as a file, not as a folder."""


def write(
    volume: Volume,
    path: str | Path,
    like: Volume | None = None,
    *,
    derivation: Derivation | None = None,
    dtype: np.dtype[Any] | str | None = None,
    deidentify: bool | Deidentification = False,
    force: bool = False,
) -> list[str]:
    """Write ``volume``; the ending of ``path`` says the format; without one, a DICOM source gives a folder.

    ``like`` is the scan whose headers and voxel grid are used (default: those that the volume was read with); a
    DICOM output needs one that is DICOM. ``derivation`` says what was done, in a DICOM output (default: what the volume
    knows of itself). ``dtype`` asks for a stored type, where the format has several.
    ``deidentify`` applies the Basic Profile of PS3.15 to DICOM (True: with the secret of this process, see
    ``Deidentification``) and leaves the header of other formats out. Returns
    notes on what had to be changed. A file that exists is replaced with ``force`` only, an input never; nothing is
    left behind on an error.
    """
    path = Path(path)
    template = like.source if like is not None else volume.source
    kind = check_target(volume, path, like, deidentify)
    if not force:
        refuse_existing(path)
    volume = on_grid_of(like, volume)
    if count := count_where(volume.array, lambda plane: ~np.isfinite(plane)):
        raise UserError(f"{path}: {count} value(s) to write are not finite, expected numbers (and padding marked so)")
    stored = None if dtype is None else np.dtype(dtype)
    if kind == "dicom":
        assert template is not None
        with quiet():
            write_dicom(volume, path, template.header, derivation or volume.derivation, deidentification(deidentify))
        return []
    entry, original = FORMATS[kind], template
    if deidentify:
        header = entry.anonymous(template.header) if template is not None and template.kind == kind else None
        template = None if template is None or header is None else replace(template, header=header)
        if volume.source is not None:
            # The stored type is kept, the header is not.
            volume = replace(volume, source=replace(volume.source, kind="", header=None))
    if entry.nan:
        volume = padding_as_nan(volume, original)
    if is_positioned(kind):
        volume = as_stored(volume, original)
    with quiet():
        return entry.write(volume, path, template, stored)


def refuse_existing(path: Path) -> None:
    """UserError for an output whose place, or that of the data beside its header, is taken by a file."""
    if taken := _existing(path):
        raise Taken(f"{taken[0]}: exists, expected a new name for the output (`force` replaces the file)")


def check_result(path: Path, force: bool) -> None:
    """UserError where a file of results cannot be written, or, without ``force``, exists: a check before the work."""
    check_place(path)
    refuse_taken(path, folder=False)
    if not force:
        refuse_existing(path)


def refuse_appeared(*paths: Path) -> None:
    """``refuse_existing`` at the end of the work, of what another program has written meanwhile."""
    if taken := [file for path in paths for file in _existing(path)]:
        expected = "expected a free place: the same command goes on once it is moved away, or with `force`"
        raise Taken(f"{taken[0]}: appeared during the run and was not replaced, {expected}")


def _existing(path: Path) -> list[Path]:
    return [file for file in files_written(path) if file.is_file()]


def check_target(
    volume: Volume, path: Path, like: Volume | None = None, deidentify: bool | Deidentification = False
) -> str:
    """The format in which ``write`` would write ``volume`` with any values: a check before long work.

    Raises UserError for an output path, a template or a format that cannot take the volume.
    """
    template = like.source if like is not None else volume.source
    kind = format_of(path, template)
    refuse_inputs(path, [p for s in (template, volume.source) if s is not None for p in s.paths])
    check_place(path, volume.array.nbytes // GAIN)
    refuse_taken(path, folder=format_of_ending(path) is None)
    if kind == "dicom" and (template is None or template.kind != "dicom"):
        found = template.kind if template is not None else "none"
        raise UserError(
            f"{path}: a DICOM output needs the headers of a DICOM series as a template, found {found}, "
            "expected a series in `like`"
        )
    if how := deidentification(deidentify):
        sources = [s.header.datasets for s in (template, volume.source) if s is not None and s.kind == "dicom"]
        for datasets in sources:
            how.check(datasets, str(path))
        if kind == "dicom" and any(mosaic_of(dataset) is not None for dataset in sources[0]):
            raise UserError(
                f"{path}: the source is a mosaic, whose private elements say where its slices are and which "
                "`deidentify` removes, expected another format (NIfTI)"
            )
    volume = on_grid_of(like, volume)
    if kind == "dicom" or not FORMATS[kind].colour:
        colour = " or ".join(entry.endings[0] for entry in FORMATS.values() if entry.colour)
        volume.refuse_colour(str(path), f"a grey one for {kind} (colour goes to {colour})")
    if kind != "dicom":
        geometry.require_even(volume.slice_origins, str(path), kind)
        FORMATS[kind].check(volume, path)
        return kind
    assert template is not None
    check_sources(template.header)
    instances = len(template.header.datasets)
    if instances > 1 and format_of_ending(path) == "dicom":
        raise UserError(f"{path}: the series has {instances} instances, expected a folder name for the output")
    return kind


def on_grid_of(like: Volume | None, volume: Volume) -> Volume:
    """Turn the volume onto the voxel grid of ``like``, with its headers. UserError for other voxels."""
    if like is None or like is volume or volume.source is like.source:
        return volume
    for scan, what in ((volume, "the scan"), (like, "the template")):
        scan.refuse_colour(what, "a grey one for `like`")
    array = geometry.reorient(volume.array, volume.affine, like.array.shape, like.affine)
    if array.size != like.array.size:
        raise UserError(
            f"the template has {len(like.slices())} images, the volume {len(volume.slices())}, expected as many"
        )
    return replace(like, array=array.reshape(like.array.shape), warnings=volume.warnings, derivation=volume.derivation)


def format_of(path: Path, template: Source | None) -> str:
    """The format that an output path asks for. A folder, or a name without the ending of a file, follows the template.

    A name with dots (1.2.840.99, restored_0.5mm) is that of a folder.
    """
    kind = format_of_ending(path)
    if kind is not None:
        return kind
    if template is not None and template.folder and (path.suffix.lower() not in _OTHER_FILES or path.is_dir()):
        return template.kind
    endings = ", ".join(output_endings())
    raise UserError(f"{path}: names no format, expected an ending {endings}, or a folder for a DICOM source")
