"""Any path in, scans out: tells formats by content, lists the scans of a file, folder, zip or DICOMDIR, reads and writes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.io import atomic, geometry
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.volume import Volume

_HEAD = 1024
_ENDINGS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".hdr": "nifti",
    ".img": "nifti",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}


@dataclass
class ScanInfo:
    """One scan of a path, as listed: ``number`` counts from 1 and is what ``series=`` takes."""

    number: int
    kind: str
    description: str
    modality: str
    shape: tuple[int, ...]
    files: int
    load: Callable[[], Volume]

    def line(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        return f"{self.number}: {self.modality or '-'} {self.description or '(no description)'}, {size}, {self.files} file(s)"


@dataclass
class Listing:
    """All scans of a path, and the count of objects that are none, by kind."""

    scans: list[ScanInfo] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)


def sniff(path: Path) -> str | None:
    """The format of a file by its first bytes: "dicom", "nifti" ..., or None."""
    from cdm4mi.io.dicom_scan import looks_like_dicom

    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                head = file.read(_HEAD)
            return "nifti" if _is_nifti(head) else None
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise UserError(f"{path.name}: cannot be read ({error.strerror})") from None
        return None
    if head[128:132] == b"DICM":
        return "dicom"
    if _is_nifti(head):
        return "nifti"
    return "dicom" if looks_like_dicom(head) else None


def list_scans(path: str | Path) -> Listing:
    """List the scans that a path holds, without reading pixels. UserError where there is nothing to read."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: does not exist, expected a scan (file or folder)")
    if path.is_dir():
        return _list_folder(path)
    kind = sniff(path)
    if kind == "dicom":
        from cdm4mi.io.dicom_scan import open_instance, single_scan

        scan = single_scan(open_instance(path, path.name))
        return Listing([_dicom_info(scan, 1)])
    if kind == "nifti":
        from cdm4mi.io.nifti import read_nifti

        return Listing([ScanInfo(1, kind, "", "", (), 1, lambda: read_nifti(path, path.name))])
    raise UserError(f"{path.name}: not a format that is known, expected DICOM or NIfTI")


def read(path: str | Path, series: int | str | None = None) -> Volume:
    """Read one scan. Where a path holds several, ``series`` is the listed number; without it the list is in the error."""
    listing = list_scans(path)
    return _choose(listing, Path(path), series).load()


def read_all(path: str | Path) -> Iterator[tuple[ScanInfo, Volume]]:
    """Every scan of a path, one after the other."""
    for info in list_scans(path).scans:
        yield info, info.load()


def write(
    volume: Volume,
    path: str | Path,
    like: Volume | None = None,
    *,
    derivation: Derivation | None = None,
    dtype: np.dtype | str | None = None,
) -> list[str]:
    """Write ``volume``; the format follows the ending of ``path``, or the source's where there is none (a folder: DICOM).

    ``like`` is the scan whose headers are used (default: the one the volume was read from); NIfTI to DICOM needs one.
    Returns notes on what had to be changed (the stored type, say). An input is never overwritten.
    """
    path = Path(path)
    template = like.source if like is not None else volume.source
    kind = _ENDINGS.get(ending(path)) or (template.kind if template is not None and not path.suffix else None)
    inputs = [p for s in (template, volume.source) if s is not None for p in s.paths]
    atomic.refuse_inputs(path, inputs)
    if kind == "dicom":
        from cdm4mi.io.dicom_write import write_dicom

        if template is None or template.kind != "dicom":
            raise UserError(f"{path}: a DICOM output needs the headers of a DICOM series, expected a template (--like)")
        write_dicom(_on_grid(volume, like), path, template.header, derivation)
        return []
    if kind == "nifti":
        from cdm4mi.io.nifti import write_nifti

        geometry.require_even(volume.slice_origins, str(path), "NIfTI")
        return write_nifti(volume, path, template, None if dtype is None else np.dtype(dtype))
    raise UserError(f"{path}: no known ending, expected one of {', '.join(sorted(_ENDINGS))} or, for DICOM, a folder")


def ending(path: Path) -> str:
    """The ending in lower case, ".nii.gz" as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _on_grid(volume: Volume, like: Volume | None) -> Volume:
    if like is None:
        return volume
    array = volume.array
    if volume.source is not like.source:
        array = geometry.reorient(array, volume.affine, like.array.shape, like.affine)
    return like.with_array(array.reshape(like.array.shape))


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _list_folder(path: Path) -> Listing:
    from cdm4mi.io.dicom_scan import find_scans

    files = [(p, str(p.relative_to(path))) for p in sorted(path.rglob("*")) if p.is_file()]
    found = find_scans((p, name) for p, name in files if sniff(p) == "dicom" and p.name.upper() != "DICOMDIR")
    listing = Listing([_dicom_info(scan, n) for n, scan in enumerate(found.scans, 1)], found.passed_over)
    if not listing.scans:
        raise UserError(f"{path}: holds no scan, expected DICOM images")
    return listing


def _dicom_info(scan, number: int) -> ScanInfo:
    from cdm4mi.io.dicom_frames import frame_count
    from cdm4mi.io.dicom_read import read_dicom
    from cdm4mi.io.dicom_scan import description, text

    first = scan.instances[0].dataset
    frames = sum(frame_count(instance.dataset) for instance in scan.instances)
    shape = (frames, int(first.Rows), int(first.Columns))
    return ScanInfo(
        number,
        "dicom",
        description(scan),
        text(first, "Modality"),
        shape,
        len(scan.instances),
        lambda: read_dicom(scan),
    )


def _choose(listing: Listing, path: Path, series: int | str | None) -> ScanInfo:
    scans = listing.scans
    if series is None:
        if len(scans) == 1:
            return scans[0]
        lines = "; ".join(scan.line() for scan in scans)
        raise UserError(f"{path}: holds {len(scans)} scans, expected the number of one (--series): {lines}")
    number = int(series) if str(series).isdigit() else 0
    if not 1 <= number <= len(scans):
        raise UserError(f"{path}: series {series} is not in the list, expected a number from 1 to {len(scans)}")
    return scans[number - 1]
