"""``read`` and ``write``: any scan in, the same scan out. Which formats there are stands in ``registry``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io import atomic, geometry
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.listing import ScanInfo, list_scans
from cdm4mi.io.quiet import quiet
from cdm4mi.io.registry import ENDINGS, FORMATS
from cdm4mi.io.sniff import ending
from cdm4mi.io.volume import Source, Volume


def read(path: str | Path, series: int | str | None = None) -> Volume:
    """Read one scan: a file, a folder, a DICOMDIR or a zip.

    Where a path holds several, ``series`` is the listed number (``list_scans``); without it the error lists them.
    UserError for anything that cannot be read rightly, with the reason; ``Volume.warnings`` names what is irregular.
    """
    listing = list_scans(path)
    volume = listing.choose(Path(path).name or str(path), series).load()
    if counted := listing.counted(without="other files"):
        volume.warnings.append(f"passed over: {counted}")
    return volume


def read_all(path: str | Path) -> Iterator[tuple[ScanInfo, Volume]]:
    """Every scan of a path, one after the other (only one is held in memory)."""
    listing = list_scans(path)
    for info in listing.scans:
        yield info, info.load()


def write(
    volume: Volume,
    path: str | Path,
    like: Volume | None = None,
    *,
    derivation: Derivation | None = None,
    dtype: np.dtype[Any] | str | None = None,
    deidentify: bool = False,
) -> list[str]:
    """Write ``volume``; the ending of ``path`` says the format; without one, a DICOM source gives a folder.

    ``like`` is the scan whose headers and voxel grid are used (default: those that the volume was read with); a
    DICOM output needs one that is DICOM. ``derivation`` says what was done, in a DICOM output (default: what the volume
    knows of itself). ``dtype`` asks for a stored type, where the format has several.
    ``deidentify`` applies the Basic Profile of PS3.15 to DICOM and leaves the header of other formats out. Returns
    notes on what had to be changed. An input is never overwritten; nothing is left behind on an error.
    """
    path = Path(path)
    template = like.source if like is not None else volume.source
    kind = check_target(volume, path, like)
    volume = placed(volume, like)
    stored = None if dtype is None else np.dtype(dtype)
    if kind == "dicom":
        from cdm4mi.io.dicom_write import write_dicom

        assert template is not None
        with quiet():
            write_dicom(volume, path, template.header, derivation or volume.derivation, deidentify)
        return []
    header = template
    if deidentify:
        kept = template is not None and template.kind == kind == "hdf5"  # what its dataset is called, and no more
        header = replace(template, header=template.header.anonymous()) if kept and template is not None else None
    if deidentify and volume.source is not None:
        # The stored type is kept, the header is not.
        volume = replace(volume, source=replace(volume.source, kind="", header=None))
    with quiet():
        return FORMATS[kind].writer(volume, path, header, stored)


def check_target(volume: Volume, path: Path, like: Volume | None = None) -> str:
    """The format in which ``write`` would write, whatever the values of ``volume``; for a check before long work.

    UserError for a place, a template or a format that cannot take the volume.
    """
    template = like.source if like is not None else volume.source
    kind = format_of(path, template)
    atomic.refuse_inputs(path, [p for s in (template, volume.source) if s is not None for p in s.paths])
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path}: exists and is not an empty folder, expected a new place for the output")
    if kind == "dicom" and (template is None or template.kind != "dicom"):
        found = template.kind if template is not None else "none"
        raise UserError(
            f"{path}: a DICOM output needs the headers of a DICOM series as a template, found {found}, "
            "expected --like SERIES"
        )
    volume = placed(volume, like)
    if kind == "dicom" or not FORMATS[kind].colour:
        volume.refuse_colour(str(path), f"a grey one for {kind} (colour goes to .png or .tif)")
    elif kind == "png" and volume.channels > 1 and (volume.source is None or volume.source.dtype != np.uint8):
        found = str(volume.source.dtype) if volume.source is not None else "float32"
        raise UserError(f"{path}: a colour PNG has 8 bits here, the image is {found}, expected .tif")
    if kind == "dicom":
        assert template is not None
        instances = len(template.header.datasets)
        if instances > 1 and ENDINGS.get(ending(path)) == "dicom":
            raise UserError(f"{path}: the series has {instances} instances, expected a folder name for the output")
    else:
        geometry.require_even(volume.slice_origins, str(path), kind)
    if kind == "png" and len(volume.slices()) != 1:
        raise UserError(
            f"{path}: a PNG holds one image, the volume has {len(volume.slices())} slices, expected another format"
        )
    return kind


def placed(volume: Volume, like: Volume | None) -> Volume:
    """The volume on the voxel grid and with the headers of ``like``; refused where the two are not the same voxels."""
    if like is None or like is volume or volume.source is like.source:
        return volume
    for scan, what in ((volume, "the scan"), (like, "the template")):
        scan.refuse_colour(what, "a grey one for --like")
    array = geometry.reorient(volume.array, volume.affine, like.array.shape, like.affine)
    if array.size != like.array.size:
        raise UserError(
            f"the template has {len(like.slices())} images, the volume {len(volume.slices())}, expected as many"
        )
    return replace(like, array=array.reshape(like.array.shape), warnings=volume.warnings, derivation=volume.derivation)


def format_of(path: Path, template: Source | None) -> str:
    """The format that an output path asks for; a path without an ending (or a folder) follows the template."""
    kind = ENDINGS.get(ending(path))
    if kind is not None:
        return kind
    is_folder_kind = template is not None and (template.kind == "dicom" or getattr(template.header, "names", None))
    if template is not None and is_folder_kind and (not path.suffix or path.is_dir()):
        return template.kind
    raise UserError(f"{path}: names no format, expected an ending {', '.join(ENDINGS)}, or a folder for a DICOM source")
