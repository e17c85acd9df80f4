"""Others judge what is written: dciodvfy, dcm2niix and a real DICOM server, on made series and on the shared scans."""

from __future__ import annotations

import io as streams

import numpy as np
import pydicom
import pytest
from dicom_series import PLANES, enhanced, save, save_one, slices
from external import (
    errors_of,
    needs_dciodvfy,
    needs_dcm2niix,
    needs_orthanc,
    niftis_of,
    orthanc,
)
from real_scans import needs_scans

from cdm4mi import io
from cdm4mi.io import Derivation, write_map
from cdm4mi.io.geometry import reorient
from experiments.shared import SCANS

DERIVATION = Derivation(model_hash="5e" * 32, settings={"steps": 1}, description="Restored by a test")
REAL = ["rider_pilot_chest_ct", "vs_seg_001_mr", "ge_head_ct_uneven"]


def noisier(volume):
    """Values between the source's steps, as a restoration gives them."""
    return volume.with_array(volume.array * 0.97 + np.float32(0.31))


def check_errors(source, out, deidentified=False):
    """Every written file has no error that the source file that it was derived from did not have."""
    sources = {}
    for path in sorted(source.iterdir()):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        sources[tuple(ds.get("ImagePositionPatient", []))] = errors_of(path)
    written = sorted(out.iterdir())
    assert len(written) == len(sources)
    for path in written:
        place = tuple(pydicom.dcmread(path, stop_before_pixels=True).get("ImagePositionPatient", []))
        assert not errors_of(path) - sources[place], (path.name, errors_of(path) - sources[place])


@needs_dciodvfy
@pytest.mark.parametrize("deidentified", [False, True])
@pytest.mark.parametrize("kind", ["CT", "MR", "PT", "unsigned", "big endian", "compressed"])
def test_dciodvfy_on_made_series(kind, deidentified, tmp_path):
    made = slices(
        count=3, modality=kind if len(kind) == 2 else "CT", signed=kind != "unsigned", bits=12, rows=32, columns=32
    )
    syntax = {"big endian": "1.2.840.10008.1.2.2", "compressed": "1.2.840.10008.1.2.5"}.get(kind, "1.2.840.10008.1.2.1")
    folder = save(made, tmp_path / "in", pydicom.uid.UID(syntax))
    volume = io.read(folder)
    for name, one in (("same", volume), ("new", noisier(volume))):
        io.write(one, tmp_path / name, derivation=DERIVATION, deidentify=deidentified)
        check_errors(folder, tmp_path / name)


@needs_dciodvfy
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_dciodvfy_on_enhanced_images(modality, tmp_path):
    path = save_one(enhanced(modality, times=2), tmp_path / "in.dcm")
    io.write(noisier(io.read(path)), tmp_path / "out.dcm", derivation=DERIVATION)
    assert not errors_of(tmp_path / "out.dcm") - errors_of(path)


@needs_dciodvfy
@needs_scans
@pytest.mark.parametrize("name", REAL)
def test_dciodvfy_on_real_series(name, tmp_path):
    folder = SCANS / "dicom" / name
    io.write(noisier(io.read(folder)), tmp_path / "out", derivation=DERIVATION)
    check_errors(folder, tmp_path / "out")


@needs_dciodvfy
def test_dciodvfy_on_a_parametric_map(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    write_map(volume, tmp_path / "map.dcm", "Standard deviation", derivation=DERIVATION)
    allowed = errors_of(next((tmp_path / "in").iterdir()))
    assert not [e for e in errors_of(tmp_path / "map.dcm") - allowed if "Laterality" not in e]


def check_niftis(source, out, tmp_path, volume):
    """dcm2niix makes the same of both folders, and its voxels are ours, turned."""
    before, after = niftis_of(source, tmp_path / "niftis_in"), niftis_of(out, tmp_path / "niftis_out")
    assert len(before) == len(after) >= 1
    for old, new in zip(before, after, strict=True):
        assert np.allclose(old.affine, new.affine, atol=1e-4)
        assert np.array_equal(old.get_fdata(), new.get_fdata())
    if volume.slice_origins is None and volume.array.ndim == 3 and not any("tilt" in w for w in volume.warnings):
        turned = reorient(before[0].get_fdata().T, before[0].affine, volume.shape, volume.affine)
        assert np.allclose(turned, volume.array, rtol=1e-6, atol=1e-4)


@needs_dcm2niix
@pytest.mark.parametrize("plane", PLANES)
def test_dcm2niix_on_made_series(plane, tmp_path):
    volume = io.read(save(slices(plane=plane, rows=32, columns=40), tmp_path / "in"))
    io.write(volume, tmp_path / "out", derivation=DERIVATION)
    check_niftis(tmp_path / "in", tmp_path / "out", tmp_path, volume)


@needs_dcm2niix
@needs_scans
@pytest.mark.parametrize("name", REAL)
def test_dcm2niix_on_real_series(name, tmp_path):
    volume = io.read(SCANS / "dicom" / name)
    io.write(volume, tmp_path / "out", derivation=DERIVATION)
    check_niftis(SCANS / "dicom" / name, tmp_path / "out", tmp_path, volume)


@needs_orthanc
def test_a_dicom_server_takes_it(tmp_path):
    folder = save(slices(rows=32, columns=32), tmp_path / "in")
    volume = io.read(folder)
    io.write(noisier(volume), tmp_path / "out", derivation=DERIVATION)
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, sorted((tmp_path / "out").iterdir()))}
    with orthanc(tmp_path / "server") as server:
        server.store(folder)
        server.store(tmp_path / "out")
        studies = server.json("/studies?expand")
        assert len(studies) == 1 and len(studies[0]["Series"]) == 2
        uid = next(iter(sent.values())).SeriesInstanceUID
        query = {"Level": "Series", "Expand": True, "Query": {"SeriesInstanceUID": uid}}
        (series,) = server.json("/tools/find", query)
        assert series["ParentStudy"] == studies[0]["ID"] and len(series["Instances"]) == len(sent)
        for number, instance in enumerate(series["Instances"]):
            ds = pydicom.dcmread(streams.BytesIO(server.get(f"/instances/{instance}/file")))
            assert ds == sent[ds.SOPInstanceUID]
            assert ds.PixelData == sent[ds.SOPInstanceUID].PixelData
            (tmp_path / f"back{number}").write_bytes(server.get(f"/instances/{instance}/file"))
    (tmp_path / "back").mkdir()
    for path in tmp_path.glob("back?*"):
        path.rename(tmp_path / "back" / path.name)
    assert np.array_equal(io.read(tmp_path / "back").array, io.read(tmp_path / "out").array)
