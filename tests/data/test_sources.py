"""Clean slices by patient from files that a user has, and one clear line where a file is not what was said."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scans_on_disk
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from cdm4mi import io
from cdm4mi.config.schema import DataConfig
from cdm4mi.data import sources
from cdm4mi.data.names import patient_name, pseudonym
from cdm4mi.data.phantoms import phantom
from cdm4mi.data.prepare import prepare
from cdm4mi.data.sources import load_patients
from cdm4mi.data.tasks import all_scans
from cdm4mi.errors import UserError


def hdf5(path, data, name="data"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = data
    return path


def read_hdf5(folder, **settings):
    return load_patients(DataConfig(kind="hdf5", paths=[str(folder)], **settings), 16, 0)


def test_hdf5_integers_become_minus_one_to_one_within_rounding(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    hdf5(tmp_path / "a_0.h5", grey)
    (patient,) = read_hdf5(tmp_path)
    expected = grey / 255 * 2 - 1
    assert np.abs(patient.slices[0].astype(np.float64) - expected).max() < 2**-11
    (twelve_bit,) = read_hdf5(tmp_path, dynamic_range=4095)
    assert float(twelve_bit.slices[0].max()) == pytest.approx(255 / 4095 * 2 - 1, abs=1e-3)


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (16, 16, 1), (5, 16, 16), (5, 16, 16, 1)])
def test_hdf5_shapes(shape, tmp_path):
    hdf5(tmp_path / "a.h5", np.full(shape, 7, np.int16))
    (patient,) = read_hdf5(tmp_path)
    assert [s.shape for s in patient.slices] == [(16, 16)] * (5 if shape[0] == 5 else 1)


@pytest.mark.parametrize(
    ("files", "patients"),
    [
        (["sub-01_patch_3.h5", "sub-01_patch_4.h5", "sub-02_patch_3.h5"], ["sub-01", "sub-02"]),
        (["IXI012-T1-0_17.hdf5", "IXI012-T1-0_18.hdf5"], ["IXI012-T1"]),
        (["IXI012-HH-1211-T1_17_3.h5", "IXI013-HH-1212-T1_17_3.h5"], ["IXI012-HH-1211-T1", "IXI013-HH-1212-T1"]),
        (["patient1_12.h5", "patient1_13.h5", "patient2_12.h5"], ["patient1", "patient2"]),
        (["jane_patch3.h5", "jane_slice_4_patch_1.h5"], ["jane"]),
        (["1.h5", "2.h5", "img3.h5"], ["patches"]),
        (["john/1.h5", "john/2.h5", "jane/1.h5"], ["jane", "john"]),
    ],
)
def test_patches_of_one_person_are_one_patient(files, patients, tmp_path):
    for file in files:
        hdf5(tmp_path / "patches" / file, np.zeros((16, 16), np.uint8))
    assert sorted(p.name for p in read_hdf5(tmp_path / "patches")) == patients


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (np.zeros((16, 16)), "image", r"a\.h5: found datasets \['image'\], expected one named data"),
        (np.full((16, 16), 300), "data", r"a\.h5: data runs from 300 to 300, expected 0 to dynamic_range"),
        (np.full((16, 16), -1), "data", "data runs from -1 to -1"),
        (np.full((16, 16), np.nan), "data", "data runs from nan to nan"),
        (np.zeros(16), "data", r"data has shape \(16,\), expected \(rows, columns\) or \(n, rows, columns\)"),
        (np.zeros((2, 2, 16, 16)), "data", r"data has shape \(2, 2, 16, 16\)"),
        (np.zeros((0, 16, 16)), "data", r"data has shape \(0, 16, 16\)"),
        (np.array(b"text"), "data", "data holds"),
    ],
)
def test_a_wrong_hdf5_file_is_one_clear_line(data, name, message, tmp_path):
    hdf5(tmp_path / "a.h5", data, name)
    with pytest.raises(UserError, match=message) as error:
        read_hdf5(tmp_path)
    assert "\n" not in str(error.value)


def test_a_group_named_data_is_one_clear_line(tmp_path):
    hdf5(tmp_path / "a.h5", np.zeros((16, 16)), "data/image")
    with pytest.raises(UserError, match="data is a group, expected a dataset"):
        read_hdf5(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "found no .h5 or .hdf5 file, expected a folder of patches"),
        (lambda root: (root / "a.h5").write_bytes(b"not that"), "not a readable HDF5 file"),
        (lambda root: (root / "scan.nii").touch(), "found no .h5"),
    ],
)
def test_a_folder_without_patches_is_one_clear_line(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        read_hdf5(tmp_path)
    assert "\n" not in str(error.value)


def nifti(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(array, 0, -1).astype(np.float32), np.eye(4)), path)


def test_volumes_by_patient_in_a_fixed_window_without_empty_slices(tmp_path):
    body = np.stack([phantom("CT", 4, 64)] * 3 + [np.full((64, 64), -1000.0)])
    nifti(tmp_path / "sub-01" / "ct.nii.gz", body)
    nifti(tmp_path / "sub-02" / "ct.nii.gz", body + 100)
    found = load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert [p.name for p in found] == ["sub-01", "sub-02"]
    assert all(p.source.startswith("CT") and len(p.slices) == 3 for p in found)
    for patient, shift in zip(found, (0, 100), strict=True):
        expected = ((body[0] + shift) / 1000).clip(-1, 1)
        close = [np.abs(np.sort(s.astype(np.float64), None) - np.sort(expected, None)).max() for s in patient.slices]
        assert max(close) < 1e-3


def test_excluded_patients_are_not_read_into_the_data_and_steps_skip_slices(tmp_path):
    for i in range(3):
        nifti(tmp_path / f"sub-{i:02d}.nii.gz", np.stack([phantom("CT", i, 64)] * 6))
    config = DataConfig(paths=[str(tmp_path / "*.nii.gz")], exclude_patients=["sub-01"], slice_step=3)
    found = load_patients(config, 16, 0)
    assert [p.name for p in found] == ["sub-00", "sub-02"]
    assert [len(p.slices) for p in found] == [2, 2]


def test_several_scans_of_a_patient_are_one_patient(tmp_path):
    for session in ("ses-1", "ses-2"):
        nifti(tmp_path / "sub-01" / session / "ct.nii.gz", np.stack([phantom("CT", 1, 64)] * 2))
    (patient,) = load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert len(patient.slices) == len(patient.foregrounds) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(), "data.paths: found none, expected scans or folders"),
        (DataConfig(paths=["nowhere/*.nii"]), "data.paths: nowhere/.*: found nothing, expected a scan"),
    ],
)
def test_paths_that_name_nothing_are_one_clear_line(config, message):
    with pytest.raises(UserError, match=message):
        load_patients(config, 16, 0)


def test_every_scan_of_a_folder_is_read_whatever_its_format(tmp_path, caplog):
    """NIfTI, MetaImage, and DICOM below them; a note and a picture are no scans."""
    for person in range(2):
        nifti(tmp_path / f"sub-{person}_t1.nii.gz", np.stack([phantom("MR", person, 64)] * 2))
    for person in range(2, 5):
        io.write(io.read(tmp_path / "sub-0_t1.nii.gz"), tmp_path / f"sub-{person}_t1.mha")
    scans_on_disk.dicom_series(tmp_path / "series")
    scans_on_disk.dicom_slice(tmp_path / "below" / "one.dcm")
    (tmp_path / "note.txt").write_text("none")
    Image.new("L", (64, 64)).save(tmp_path / "picture.png")
    found = {p.name: len(p.slices) for p in load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)}
    ct = pseudonym("PID-40917")
    assert found == {ct: 4, "sub-0": 2, "sub-1": 2, "sub-2": 2, "sub-3": 2, "sub-4": 2}
    assert "passed over 1 PNG file(s)" in caplog.text


def test_series_that_name_nobody_are_of_the_folder_that_was_given(tmp_path):
    for person, series in (("john", "a"), ("john", "b"), ("jane", "a")):
        file = scans_on_disk.dicom_slice(tmp_path / person / series / "slice.dcm")
        nameless = pydicom.dcmread(file)
        nameless.PatientID, nameless.SeriesInstanceUID = "", generate_uid()
        nameless.save_as(file)
    found = load_patients(DataConfig(paths=[str(tmp_path / "*")]), 16, 0)
    assert {p.name: len(p.slices) for p in found} == {"jane": 1, "john": 2}


def test_a_damaged_scan_among_others_is_named(tmp_path):
    scans_on_disk.dicom_series(tmp_path / "series")
    (tmp_path / "series" / "empty.dcm").write_bytes(b"")
    with pytest.raises(UserError, match=r"^\S*/series/empty\.dcm: not in a format that is known") as error:
        load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert "\n" not in str(error.value)


def test_pictures_are_scans_where_there_are_no_others(tmp_path):
    for person in range(2):
        Image.fromarray((phantom("MR", person, 64) / 4).clip(0, 255).astype(np.uint8)).save(tmp_path / f"p{person}.png")
    assert sorted(p.name for p in load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)) == ["p0.png", "p1.png"]


def test_where_file_names_repeat_the_folder_is_the_patient(tmp_path):
    for person in ("john", "jane"):
        for scan in ("t1", "t2"):
            nifti(tmp_path / person / f"{scan}.nii.gz", np.stack([phantom("MR", 1, 64)] * 2))
    found = load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert {p.name: len(p.slices) for p in found} == {"jane": 4, "john": 4}


def test_one_repeated_file_name_does_not_make_patients_of_other_folders(tmp_path):
    for place in ("john/t1", "john/t2", "jane/t1", "ct/chest_a", "ct/chest_b"):
        nifti(tmp_path / f"{place}.nii.gz", np.stack([phantom("MR", 1, 64)] * 2))
    found = load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert sorted(p.name for p in found) == ["chest_a", "chest_b", "jane", "john"]


def test_a_bids_label_is_the_subjects_own_not_that_of_the_place():
    assert patient_name(Path("/data/sub-lab/sub-07/anat/sub-07_T1w.nii.gz")) == "sub-07"
    assert patient_name(Path("/data/HEAD_3.nii.gz")) == "head_3"


def test_series_of_one_person_in_two_folders_are_one_patient_and_the_id_is_not_told(tmp_path):
    original = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for i, patient_id in enumerate(["DOE^JANE", "DOE^JANE", "ROE^RICHARD"]):
        original.PatientID = patient_id
        original.SeriesInstanceUID = generate_uid()
        (tmp_path / str(i)).mkdir()
        original.save_as(tmp_path / str(i) / "slice.dcm")
    found = load_patients(DataConfig(paths=[str(tmp_path / "*")]), 16, 0)
    assert sorted(len(p.slices) for p in found) == [1, 2]
    assert not any(word in p.name.upper() for p in found for word in ("DOE", "JANE", "ROE"))


def test_a_scan_without_a_number_is_named(tmp_path):
    nifti(tmp_path / "broken.nii.gz", np.full((2, 64, 64), np.nan))
    with pytest.raises(UserError, match=r"broken\.nii\.gz: all voxels are NaN"):
        load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)


def test_phantoms_are_people_of_their_own_for_every_seed(monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_PATIENTS", 4)
    monkeypatch.setattr(sources, "PHANTOM_SLICES", 1)
    config = DataConfig(kind="phantoms")
    people, again, others = (load_patients(config, 64, seed) for seed in (1, 1, 2))
    assert [p.source for p in people] == ["CT-phantom", "MR-phantom"] * 2
    pixels = [[p.slices[0].tobytes() for p in group] for group in (people, again, others)]
    assert pixels[0] == pixels[1]
    assert len(set(pixels[0] + pixels[2])) == 8
    assert all(s.min() >= -1 and s.max() <= 1 for p in people for s in p.slices)


def test_a_patient_to_exclude_who_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"exclude_patients: found 'phantom-oo1', expected names among phantom-000"):
        load_patients(DataConfig(kind="phantoms", exclude_patients=["phantom-oo1"]), 64, 0)
    kept = load_patients(DataConfig(kind="phantoms", exclude_patients=["phantom-001"]), 64, 0)
    assert "phantom-001" not in [p.name for p in kept]


def test_a_damaged_scan_among_many_is_named_with_its_folder(tmp_path, save_nifti):
    scan = save_nifti(tmp_path / "site-2" / "sub-01.nii.gz", np.random.default_rng(0).normal(500, 9, (4, 32, 32)))
    scan.write_bytes(scan.read_bytes()[:-500])
    with pytest.raises(UserError) as error:
        load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)
    assert str(error.value) == f"{scan}: the gzip data are damaged or cut short"


def test_a_store_among_the_scans_it_was_made_of_is_passed_over(tmp_path, save_nifti):
    for n in range(2):
        save_nifti(tmp_path / f"sub-{n:02}.nii.gz", np.random.default_rng(n).normal(500, 9, (4, 32, 32)))
    prepare(all_scans([tmp_path], tmp_path / "store"), tmp_path / "store", workers=1)
    assert [p.name for p in load_patients(DataConfig(paths=[str(tmp_path)]), 16, 0)] == ["sub-00", "sub-01"]
