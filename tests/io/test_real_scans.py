"""The shared real scans: round trips, geometry against SimpleITK, the uneven head CT."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import save, slices
from real_scans import needs_scans

from cdm4mi import io
from cdm4mi.errors import UserError
from experiments.shared import SCANS

pytestmark = needs_scans
DICOM = ["rider_pilot_chest_ct", "vs_seg_001_mr", "ge_head_ct_uneven"]


@pytest.mark.parametrize("name", DICOM)
def test_series_round_trip_under_other_names(name, tmp_path):
    files = sorted((SCANS / "dicom" / name).iterdir())
    (tmp_path / "in").mkdir()
    for number, path in zip(np.random.default_rng(0).permutation(len(files)), files, strict=True):
        shutil.copyfile(path, tmp_path / "in" / f"{number}")
    volume, shuffled = io.read(SCANS / "dicom" / name), io.read(tmp_path / "in")
    assert np.array_equal(volume.array, shuffled.array) and np.array_equal(volume.affine, shuffled.affine)
    io.write(volume, tmp_path / "out")
    again = io.read(tmp_path / "out")
    assert np.array_equal(again.array, volume.array) and np.array_equal(again.affine, volume.affine)
    assert again.warnings == volume.warnings


@pytest.mark.parametrize("name", DICOM)
def test_each_voxel_lies_where_simpleitk_puts_it(name):
    volume = io.read(SCANS / "dicom" / name)
    by_place = {}
    for path in (SCANS / "dicom" / name).iterdir():
        image = sitk.ReadImage(str(path))
        by_place[round(image.GetOrigin()[2], 2)] = image
    order = [by_place[place] for place in sorted(by_place)]
    assert len(order) == volume.shape[0]
    rows, columns = volume.shape[1:]
    for k, image in enumerate(order):
        values = sitk.GetArrayFromImage(image)[0].astype(np.float32)
        assert np.array_equal(values, volume.array[k])
        for i, j in [(0, 0), (columns - 1, rows - 1), (100, 7)]:
            place = np.array(image.TransformIndexToPhysicalPoint((i, j, 0))) * [-1, -1, 1]
            assert np.allclose((volume.slice_affine(k) @ [i, j, 0, 1])[:3], place, atol=0.01)
            if volume.slice_origins is None:
                assert np.allclose((volume.affine @ [i, j, k, 1])[:3], place, atol=0.01)


def test_uneven_head_ct_is_read_with_its_spacing_named():
    volume = io.read(SCANS / "dicom" / "ge_head_ct_uneven")
    assert any("1.14 to 7.38 mm between slice origins" in warning for warning in volume.warnings)
    assert any("gantry tilt" in warning and "18.5" in warning for warning in volume.warnings)


def test_a_series_mixed_into_it_asks_which_one(tmp_path):
    for path in (SCANS / "dicom" / "ge_head_ct_uneven").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    save(slices(), tmp_path / "other")
    with pytest.raises(UserError, match=r"holds 2 scans.*28 x 512 x 512"):
        io.read(tmp_path)
    number = next(scan.number for scan in io.list_scans(tmp_path).scans if scan.files == 28)
    assert io.read(tmp_path, series=number).shape == (28, 512, 512)


@pytest.mark.parametrize("name", ["ct/rider_pilot_chest.nii.gz", "mr/pyradiomics_brain1.nii.gz"])
def test_nifti_round_trip(name, tmp_path):
    volume = io.read(SCANS / name)
    io.write(volume, tmp_path / "out.nii")
    again = io.read(tmp_path / "out.nii")
    assert np.array_equal(again.array, volume.array) and np.array_equal(again.affine, volume.affine)
    image = sitk.ReadImage(str(SCANS / name))
    for i, j, k in [(0, 0, 0), (200, 17, 11)]:
        place = np.array(image.TransformIndexToPhysicalPoint((i, j, k))) * [-1, -1, 1]
        assert np.allclose((volume.affine @ [i, j, k, 1])[:3], place, atol=0.01)


def test_the_dicom_series_is_a_part_of_the_nifti_volume():
    series, volume = (
        io.read(SCANS / "dicom" / "rider_pilot_chest_ct"),
        io.read(SCANS / "ct" / "rider_pilot_chest.nii.gz"),
    )
    offset = np.linalg.inv(volume.affine) @ series.affine[:, 3]
    first = round(float(offset[2]))
    assert np.allclose(offset, [0, 0, first, 1], atol=0.05)
    assert np.array_equal(series.array, volume.array[first : first + len(series.array)])
    assert pydicom.uid.UID(series.source.header.datasets[0].SOPClassUID).name == "CT Image Storage"
