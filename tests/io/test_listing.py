"""A folder, a zip or a DICOMDIR: every scan is listed, what is none is counted, and a hostile archive does no harm."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import common, noise, save, save_one, slices, uid
from pydicom.fileset import FileSet

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io.volume import Volume

TESTFILES = Path(pydicom.__file__).parent / "data" / "test_files"


def report():
    ds = common("CT", "report")
    ds.SOPClassUID, ds.Modality, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "SR", uid("report")
    return ds


def zipped(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_objects_that_are_no_scan_are_counted(tmp_path):
    folder = save([*slices(), report()], tmp_path / "in" / "deep")
    (folder / "readme.txt").write_text("hello")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    listing = io.list_scans(tmp_path / "in")
    assert [scan.shape for scan in listing.scans] == [(5, 14, 18)]
    assert listing.passed_over["Basic Text SR"] == 1 and listing.passed_over["other files"] == 1
    assert sum(listing.passed_over.values()) == 2 and listing.unreadable == ["deep/broken.dcm"]
    volume = io.read(tmp_path / "in")
    assert volume.shape == (5, 14, 18)
    assert volume.warnings == ["passed over: 1 Basic Text SR, 1 unreadable (deep/broken.dcm)"]


def test_a_folder_without_a_scan_says_what_it_holds(tmp_path):
    with pytest.raises(UserError, match="1 Basic Text SR"):
        io.read(save([report()], tmp_path / "in"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no files"):
        io.read(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        io.read(tmp_path / "nowhere")


def test_zip_of_a_series(tmp_path):
    folder = save([*slices(), report()], tmp_path / "in")
    path = zipped(folder, tmp_path / "in.zip")
    volume = io.read(path)
    assert np.array_equal(volume.array, io.read(folder).array)
    assert volume.source.paths == (path,)
    io.write(volume, tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").array, volume.array)


def test_zip_of_a_nifti_pair(tmp_path):
    (tmp_path / "in").mkdir()
    volume = Volume(noise((3, 9, 8), 0, 250), np.diag([0.7, 0.8, 2.5, 1.0]))
    io.write(volume, tmp_path / "in" / "scan.hdr")
    assert np.array_equal(io.read(zipped(tmp_path / "in", tmp_path / "in.zip")).array, volume.array)


def test_a_zip_cannot_write_elsewhere_or_fill_the_disk(tmp_path):
    one = save_one(slices(count=1)[0], tmp_path / "one.dcm").read_bytes()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("../../outside.dcm", one)
    assert io.read(tmp_path / "in.zip").shape == (1, 14, 18)
    assert not (tmp_path.parent / "outside.dcm").exists() and not (tmp_path.parent.parent / "outside.dcm").exists()
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x", "w", force_zip64=True) as file,
    ):
        for _ in range(2200):
            file.write(bytes(2**20))
    with pytest.raises(UserError, match="claims to unpack"):
        io.read(tmp_path / "bomb.zip")


def test_several_files_of_other_formats_are_listed(tmp_path):
    volume = Volume(noise((3, 9, 8), 0, 250), np.eye(4))
    for name in ("b.nii", "a.nii.gz", "c.mha"):
        io.write(volume, tmp_path / name)
    listing = io.list_scans(tmp_path)
    assert [scan.description for scan in listing.scans] == ["a.nii.gz", "b.nii", "c.mha"]
    with pytest.raises(UserError, match="holds 3 scans"):
        io.read(tmp_path)
    assert io.read(tmp_path, series=3).kind == "mha"


def test_dicomdir(tmp_path):
    files = FileSet()
    for n, ds in enumerate([*slices(), *slices(series=2, count=3, name="second")]):
        files.add(save_one(ds, tmp_path / f"{n}"))
    files.write(tmp_path / "set")
    listing = io.list_scans(tmp_path / "set" / "DICOMDIR")
    assert [scan.shape[0] for scan in listing.scans] == [5, 3]
    assert [scan.shape[0] for scan in io.list_scans(tmp_path / "set").scans] == [5, 3]
    assert io.read(tmp_path / "set" / "DICOMDIR", series=2).shape == (3, 14, 18)


@pytest.mark.skipif(not (TESTFILES / "dicomdirtests").is_dir(), reason="pydicom's DICOMDIR set is not installed")
def test_shipped_dicomdir_lists_the_same_as_its_folder():
    by_record = io.list_scans(TESTFILES / "dicomdirtests" / "DICOMDIR")
    assert len(by_record.scans) > 10
    assert len({scan.number for scan in by_record.scans}) == len(by_record.scans)


def test_describe_names_no_patient(tmp_path):
    found = io.describe(save(slices(), tmp_path / "in"))
    said = str(found.facts) + found.listing.scans[0].line()
    assert "5 x 14 x 18" in said and "HU" in said
    assert not any(secret in said for secret in ("SECRET", "Jane", "1950"))


@pytest.mark.parametrize("content", [b"", bytes(4000), b"not an image"])
def test_a_broken_member_of_a_series_is_named(content, tmp_path):
    folder = save(slices(), tmp_path / "in")
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(".dcm"))
    (folder / "last.dcm").write_bytes(content)
    (folder / "notes.txt").write_text("")
    assert io.read(folder).warnings == ["passed over: 1 unreadable (last.dcm)"]
    assert io.list_scans(folder).counted() == "1 other files, 1 unreadable (last.dcm)"


def test_an_empty_member_without_an_ending_is_named_too(tmp_path):
    folder = save(slices(), tmp_path / "in")
    (folder / "9999").write_bytes(b"")
    (folder / "README").write_text("what this is")
    assert io.read(folder).warnings == ["passed over: 1 unreadable (9999)"]


def test_linked_folders_are_followed_once(tmp_path):
    save(slices(), tmp_path / "elsewhere")
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "round").symlink_to(tmp_path / "in")
    for name in ("link", "again"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    volume = io.read(tmp_path / "in")
    assert len(volume.array) == 5 and not volume.warnings
