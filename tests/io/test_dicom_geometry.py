"""What is irregular about a series is named, or refused with the reason; several series are never mixed in silence."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dicom_series import PLANES, save, slices, uid

from cdm4mi import io
from cdm4mi.errors import UserError


def warned(folder, word):
    volume = io.read(folder)
    assert any(word in warning for warning in volume.warnings), volume.warnings
    return volume


def test_uneven_spacing_is_named_and_each_slice_keeps_its_place(tmp_path):
    places = [0, 4.2, 8.4, 15.8, 23.2]
    volume = warned(save(slices(positions=places), tmp_path / "in"), "uneven slice spacing: from 4.20 to 7.40 mm")
    assert np.allclose(np.diff(volume.slice_origins[:, 2]), np.diff(places))
    assert np.allclose([volume.slice_affine(k)[2, 3] for k in range(5)], -40 + np.array(places))
    io.write(volume, tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").slice_origins, volume.slice_origins)
    with pytest.raises(UserError, match="one spacing"):
        io.write(volume, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def test_missing_slices_are_counted(tmp_path):
    warned(save(slices(positions=[0, 2.5, 5, 12.5, 15]), tmp_path / "in"), "missing slices: 2 at 1 place")


def test_doubled_slices_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"doubled slices: 2 different ones .* 1 of 4 places"):
        io.read(save(slices(positions=[0, 2.5, 2.5, 5, 7.5]), tmp_path / "in"))


def test_copies_of_a_file_are_left_out(tmp_path):
    made = slices()
    volume = warned(save([*made, made[2]], tmp_path / "in"), "1 file(s) are copies")
    assert volume.shape[0] == 5


def test_gantry_tilt_is_named_and_kept_in_the_affine(tmp_path):
    made = slices()
    for k, ds in enumerate(made):
        ds.ImagePositionPatient = [-20.0, 15.0 + k * 0.8, -40.0 + k * 2.5]
    volume = warned(save(made, tmp_path / "in"), "gantry tilt: the slices are stacked 17.7 degrees")
    assert np.allclose(volume.affine[:3, 2], [0, -0.8, 2.5])
    io.write(volume, tmp_path / "out.nii.gz")
    assert np.allclose(io.read(tmp_path / "out.nii.gz").affine, volume.affine, atol=1e-5)


def test_mixed_orientations_are_split_and_listed(tmp_path):
    made = slices(count=3)
    for k, plane in enumerate(["axial", "sagittal", "coronal"]):
        made[k].ImageOrientationPatient = list(PLANES[plane])
    folder = save(made, tmp_path / "in")
    with pytest.raises(UserError, match=r"3 scans.*part 1 of 3.*part 3 of 3"):
        io.read(folder)
    assert io.read(folder, series=2).shape[0] == 1


def test_the_last_digits_of_an_orientation_do_not_split_a_series(tmp_path):
    made = slices()
    for k, ds in enumerate(made):  # 0.71 lies on the border of many a rounding
        cosine = 0.71 + (-1) ** k * 1e-6
        ds.ImageOrientationPatient = [f"{v:.8f}" for v in (cosine, (1 - cosine**2) ** 0.5, 0, 0, 0, -1)]
        ds.ImagePositionPatient = [2.5 * k * 0.704202, -2.5 * k * 0.71, 0]
    assert io.read(save(made, tmp_path / "in")).shape[0] == 5


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime", "InstanceNumber"])
def test_time_points_become_the_first_axis(keyword, tmp_path):
    made = []
    for time in range(3):
        for k, ds in enumerate(slices(modality="MR", slope=None, signed=False, bits=12, seed=time)):
            ds.AcquisitionNumber = 1
            ds.InstanceNumber = time * 5 + k if keyword == "InstanceNumber" else 1
            if keyword != "InstanceNumber":
                setattr(ds, keyword, f"1000{30 - time}" if keyword == "AcquisitionTime" else 10 + time)
            made.append(ds)
    folder = save(made, tmp_path / "in")
    volume = warned(folder, f"time points: 3 images at each of 5 places, told apart by {keyword}")
    assert volume.shape[:2] == (3, 5)
    times = [2, 1, 0] if keyword == "AcquisitionTime" else [0, 1, 2]
    alone = [io.read(save(made[time * 5 : time * 5 + 5], tmp_path / f"t{time}")).array for time in times]
    assert np.array_equal(volume.array, np.stack(alone))
    io.write(volume, tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").array, volume.array)
    io.write(volume, tmp_path / "out.nii")
    assert np.array_equal(io.read(tmp_path / "out.nii").array, volume.array)


def test_time_points_that_nothing_tells_apart_are_refused(tmp_path):
    made = []
    for time in range(2):
        for ds in slices(seed=time):
            ds.InstanceNumber = 1
            made.append(ds)
    with pytest.raises(UserError, match="no attribute"):
        io.read(save(made, tmp_path / "in"))


def test_phase_images_are_kept_apart_from_magnitude(tmp_path):
    magnitude = slices(modality="MR", slope=None)
    phase = copy.deepcopy(slices(modality="MR", slope=None, seed=1))
    for ds in phase:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "P"]
        ds.SeriesInstanceUID = magnitude[0].SeriesInstanceUID
    listing = io.list_scans(save([*magnitude, *phase], tmp_path / "in"))
    assert [scan.shape[0] for scan in listing.scans] == [5, 5]


def test_several_series_ask_which_one(tmp_path):
    made = slices(series=3, name="c") + slices(series=2, name="b", count=4, seed=1)
    folder = save(made, tmp_path / "in")
    with pytest.raises(
        UserError, match=r"2 scans.*`series`.*1: CT made baxial.*4 x 14 x 18.*2: CT made caxial"
    ) as error:
        io.read(folder)
    assert "SECRET" not in str(error.value) and "\n" not in str(error.value)
    assert io.read(folder, series=1).shape[0] == 4
    assert io.read(folder, series="2").shape[0] == 5
    assert [volume.shape[0] for _, volume in io.read_all(folder)] == [4, 5]
    with pytest.raises(UserError, match="from 1 to 2"):
        io.read(folder, series=3)


def test_colour_and_mixed_orientations_inside_one_image_are_refused(tmp_path):
    ds = slices(count=1)[0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.SOPInstanceUID = uid("colour")
    with pytest.raises(UserError, match="colour"):
        io.read(save([ds], tmp_path / "in"))
