"""Write a map of floats beside a scan (the uncertainty of a restoration): a Parametric Map, or another format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.files import check_place, refuse_inputs, refuse_taken, replacing_file
from cdm4mi.io.arrays import count_where
from cdm4mi.io.derivation import Derivation
from cdm4mi.io.dicom.deidentify import Deidentification, deidentification
from cdm4mi.io.dicom.parametric_map import parametric_map, series_description
from cdm4mi.io.dicom.write import check_sources, save
from cdm4mi.io.formats import format_of_ending
from cdm4mi.io.volume import Volume
from cdm4mi.io.writing import check_target, on_grid_of, refuse_existing, write


def write_map(
    volume: Volume,
    path: str | Path,
    meaning: str,
    like: Volume | None = None,
    *,
    derivation: Derivation | None = None,
    deidentify: bool | Deidentification = False,
    force: bool = False,
) -> None:
    """Write a map of float32 values on the grid of the scan that ``volume`` (or ``like``) was read from.

    ``meaning`` says what the values are, such as "Standard deviation". A DICOM output (.dcm) is one Parametric Map
    (PS3.3 A.75) that refers to its source images; the ending of another format gives float32 in that one.
    """
    path = Path(path)
    check_map_target(volume, path, like)
    if format_of_ending(path) != "dicom":
        dtype = np.dtype(np.float32)
        write(volume, path, like, derivation=derivation, dtype=dtype, deidentify=deidentify, force=force)
        return
    if not force:
        refuse_existing(path)
    if count_where(volume.array, lambda plane: ~np.isfinite(plane)):
        raise UserError(f"{path}: the map holds values that are not finite, which DICOM cannot store")
    derivation = replace(derivation or volume.derivation or Derivation(), label=meaning.lower())
    volume = on_grid_of(like, volume)
    assert volume.source is not None
    dataset = parametric_map(volume, volume.source.header, meaning, derivation)
    if how := deidentification(deidentify):
        how.check([dataset], str(path))
        how.apply(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesDescription = series_description(meaning)
    with replacing_file(path) as temporary:
        save(dataset, temporary)


def check_map_target(volume: Volume, path: str | Path, like: Volume | None = None) -> None:
    """Check whether ``write_map`` can write to ``path``, before long work. Raises the UserError that it would raise."""
    path = Path(path)
    source = (like or volume).source
    if format_of_ending(path) != "dicom":
        if check_target(volume, path, like) == "dicom":
            raise UserError(
                f"{path}: is the name of a DICOM series, which holds no map, expected a name that ends in .dcm (a "
                "Parametric Map) or as another format does (.nii.gz)"
            )
        return
    if source is None or source.kind != "dicom":
        raise UserError(
            f"{path}: a Parametric Map refers to DICOM images, found {source.kind if source else 'none'}, expected a "
            "DICOM source, a series in `like`, or another format"
        )
    refuse_inputs(path, [p for s in (source, volume.source) if s is not None for p in s.paths])
    check_place(path)
    refuse_taken(path, folder=False)
    if volume.array.ndim == 4:
        raise UserError(f"{path}: a Parametric Map holds one value at each place, expected no time points")
    volume = on_grid_of(like, volume)
    assert volume.source is not None
    header = volume.source.header
    check_sources(header)
    # Headers that do not suffice show on the first image already.
    frames = header.frames if len(header.datasets) == 1 else header.frames[:1]
    empty = replace(volume, array=np.zeros((len(frames), 1, 1), np.float32), padding=None)
    parametric_map(empty, replace(header, frames=frames), "Map", Derivation())
