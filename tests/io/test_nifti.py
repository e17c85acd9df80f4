"""NIfTI in and out: affine, codes, dtype, slope and intercept, 2 to 4 axes; and to and from DICOM."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from dicom_series import PLANES, noise, save, slices

from cdm4mi import io
from cdm4mi.errors import UserError

AFFINE = np.array([[0.0, -0.8, 0.1, 5], [0.7, 0, 0, -3], [0, 0.05, 2.5, 11], [0, 0, 0, 1]])


def make(path, shape=(5, 6, 7), dtype=np.int16, kind=nib.Nifti1Image, slope=None, codes=(1, 2)):
    data = noise(shape, 0, 200, seed=1).astype(dtype)
    image = kind(data, AFFINE)
    image.header.set_data_dtype(dtype)
    image.set_sform(AFFINE, codes[0])
    image.set_qform(AFFINE, codes[1], strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"kept"
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return data if slope is None else data * slope[0] + slope[1]


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (5, 6, 7, 3), (5, 6, 1, 3)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr"])
def test_axes_values_and_header_survive(shape, ending, tmp_path):
    kind = nib.Nifti1Pair if ending == ".hdr" else nib.Nifti1Image
    data = make(tmp_path / f"in{ending}", shape, kind=kind)
    volume = io.read(tmp_path / f"in{ending}")
    assert np.array_equal(volume.array, data.T if data.ndim > 2 else data.T[None])
    io.write(volume, tmp_path / f"out{ending}")
    before, after = nib.load(tmp_path / f"in{ending}"), nib.load(tmp_path / f"out{ending}")
    assert np.array_equal(before.get_fdata(), after.get_fdata())
    for field in (
        "dim",
        "pixdim",
        "datatype",
        "qform_code",
        "sform_code",
        "xyzt_units",
        "descrip",
        "srow_x",
        "quatern_b",
    ):
        assert np.array_equal(before.header[field], after.header[field]), field


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_stored_type_survives(dtype, kind, tmp_path):
    make(tmp_path / "in.nii", dtype=dtype, kind=kind)
    assert io.write(io.read(tmp_path / "in.nii"), tmp_path / "out.nii") == []
    after = nib.load(tmp_path / "out.nii")
    assert after.get_data_dtype() == dtype and isinstance(after, kind)


def test_slope_and_intercept_survive(tmp_path):
    expected = make(tmp_path / "in.nii", slope=(0.0123, -7.5))
    volume = io.read(tmp_path / "in.nii")
    assert np.allclose(volume.array, expected.T, rtol=1e-6)
    io.write(volume, tmp_path / "out.nii")
    after = nib.load(tmp_path / "out.nii")
    assert np.array_equal(io.read(tmp_path / "out.nii").array, volume.array)
    assert np.array_equal(after.dataobj.get_unscaled(), nib.load(tmp_path / "in.nii").dataobj.get_unscaled())


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (2, 1), (4, 4)])
def test_codes_survive(codes, tmp_path):
    make(tmp_path / "in.nii", codes=codes)
    volume = io.read(tmp_path / "in.nii")
    io.write(volume, tmp_path / "out.nii")
    after = nib.load(tmp_path / "out.nii")
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == codes
    assert np.array_equal(io.read(tmp_path / "out.nii").affine, volume.affine)


@pytest.mark.parametrize("units, scale", [("micron", 1e-3), ("meter", 1e3)])
def test_lengths_are_millimetres_whatever_the_header_counts_in(units, scale, tmp_path):
    make(tmp_path / "in.nii")
    image = nib.load(tmp_path / "in.nii")
    image.header.set_xyzt_units(units, "sec")
    nib.save(image, tmp_path / "other.nii")
    volume = io.read(tmp_path / "other.nii")
    assert np.allclose(volume.affine[:3], AFFINE[:3] * scale)
    io.write(volume, tmp_path / "out.nii")
    after = nib.load(tmp_path / "out.nii")
    assert after.header.get_xyzt_units() == (units, "sec") and np.allclose(after.affine, image.affine, atol=1e-6)
    io.write(volume, tmp_path / "out.mha")
    assert np.allclose(io.read(tmp_path / "out.mha").affine, volume.affine)


def test_values_between_the_steps_keep_the_type_with_a_finer_slope(tmp_path):
    make(tmp_path / "in.nii")
    volume = io.read(tmp_path / "in.nii")
    changed = volume.with_array(volume.array + np.random.default_rng(0).normal(0, 5, volume.shape).astype(np.float32))
    assert io.write(changed, tmp_path / "out.nii") == []
    assert nib.load(tmp_path / "out.nii").get_data_dtype() == np.int16
    assert np.abs(io.read(tmp_path / "out.nii").array - changed.array).max() <= 1 / 32


def test_a_type_that_does_not_fit_is_changed_and_said(tmp_path):
    make(tmp_path / "in.nii", dtype=np.uint8)
    volume = io.read(tmp_path / "in.nii")
    notes = io.write(volume.with_array(volume.array * 1.37 - 20.2), tmp_path / "out.nii")
    assert notes and "instead of uint8" in notes[0]
    nan = volume.array.copy()
    nan[0] = np.nan
    for ending in (".nii", ".mha", ".nrrd", ".tif", ".h5"):
        with pytest.raises(UserError, match=rf"nan{ending}: {nan[0].size} value\(s\) to write are not finite"):
            io.write(volume.with_array(nan), tmp_path / f"nan{ending}")
    assert not list(tmp_path.glob("nan*"))


def test_an_asked_type_is_taken(tmp_path):
    make(tmp_path / "in.nii")
    io.write(io.read(tmp_path / "in.nii"), tmp_path / "out.nii", dtype="float32")
    assert nib.load(tmp_path / "out.nii").get_data_dtype() == np.float32


@pytest.mark.parametrize("plane", PLANES)
def test_dicom_to_nifti_and_back_with_a_template(plane, tmp_path):
    volume = io.read(save(slices(plane=plane), tmp_path / "in"))
    io.write(volume, tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert np.allclose(image.affine, volume.affine, atol=1e-4) and np.array_equal(image.get_fdata().T, volume.array)
    # Other tools turn and mirror the axes: the template's grid is found again.
    nib.save(nib.as_closest_canonical(image), tmp_path / "ras.nii.gz")
    turned = io.read(tmp_path / "ras.nii.gz")
    io.write(turned, tmp_path / "back", like=volume)
    assert np.array_equal(io.read(tmp_path / "back").array, volume.array)
    with pytest.raises(UserError, match="template"):
        io.write(turned, tmp_path / "none.dcm")
    shifted = io.read(tmp_path / "ras.nii.gz")
    shifted.affine[0, 3] += 1.0
    with pytest.raises(UserError, match="template's voxels"):
        io.write(shifted, tmp_path / "none", like=volume)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_what_is_not_one_grey_value_is_refused(dtype, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), dtype=dtype), np.eye(4)), tmp_path / "in.nii")
    with pytest.raises(UserError, match="expected one grey value"):
        io.read(tmp_path / "in.nii")


def test_a_header_that_claims_too_much_is_refused_first(tmp_path):
    make(tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(bytes(content))
    with pytest.raises(UserError, match="32000 x 32000 x 32000 voxels"):
        io.read(tmp_path / "huge.nii")


@pytest.mark.parametrize(("zeroed", "used"), [("sform", "qform"), ("qform", "sform")])
def test_a_singular_form_gives_way_to_the_other(zeroed, used, tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([0.9, 0.9, 3.0, 1.0]))
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "in.nii")
    raw = bytearray((tmp_path / "in.nii").read_bytes())
    if zeroed == "sform":
        raw[280:328] = bytes(48)
    else:
        raw[252:254] = bytes(2)
        raw[256:268] = np.full(3, 7, np.float32).tobytes()
    (tmp_path / "in.nii").write_bytes(raw)
    volume = io.read(tmp_path / "in.nii")
    assert np.allclose(volume.affine, image.affine)
    assert any(f"the {used} is used" in warning for warning in volume.warnings) == (zeroed == "sform")
    io.write(volume, tmp_path / "out.nii")
    assert np.allclose(nib.load(tmp_path / "out.nii").affine, image.affine)


def test_nan_is_padding_that_comes_back(tmp_path):
    array = np.random.default_rng(0).uniform(10, 900, (3, 8, 9)).astype(np.float32)
    array[:, :2] = np.nan
    nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / "in.nii")
    volume = io.read(tmp_path / "in.nii")
    assert np.array_equal(volume.padding, np.isnan(array)) and (volume.array[:, :2] == 0).all()
    assert volume.warnings[-1] == "54 voxel(s), 25.0%, are NaN: taken as padding and kept"
    for name in ("out.nii", "out.mha", "out.nrrd", "out.h5", "out.tif"):
        io.write(volume, tmp_path / name)
        again = io.read(tmp_path / name)
        assert np.array_equal(again.padding, volume.padding) and np.array_equal(again.array, volume.array), name
    array[0, 4, 4] = np.inf
    nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / "in.nii")
    with pytest.raises(UserError, match="1 voxel"):
        io.read(tmp_path / "in.nii")
    nib.save(nib.Nifti1Image(np.full((9, 8, 3), np.nan, np.float32), np.eye(4)), tmp_path / "in.nii")
    with pytest.raises(UserError, match="all voxels are NaN"):
        io.read(tmp_path / "in.nii")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kind", "at", "code"), [(nib.Nifti1Image, 112, "<f4"), (nib.Nifti2Image, 176, "<f8")])
def test_a_slope_that_is_none_means_no_scaling(kind, at, code, value, tmp_path):
    data = make(tmp_path / "in.nii", kind=kind)
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[at : at + np.dtype(code).itemsize] = np.array(value, code).tobytes()
    (tmp_path / "in.nii").write_bytes(content)
    volume = io.read(tmp_path / "in.nii")
    assert np.array_equal(volume.array, data.T)
    said = [warning for warning in volume.warnings if warning.startswith(f"scl_slope is {value}")]
    assert len(said) == (value != 0)
    io.write(volume, tmp_path / "out.nii")
    assert not [w for w in io.read(tmp_path / "out.nii").warnings if "scl_slope" in w]


@pytest.mark.parametrize("spacing", [20000.0, np.nan, np.inf, 0.0])
def test_a_spacing_beyond_reason_is_one_line(spacing, tmp_path):
    make(tmp_path / "in.nii")
    image = nib.load(tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    image.header["srow_x"] = [spacing, 0, 0, 0]
    image.header["qform_code"] = 0
    image.header.set_slope_inter(1, 0)
    content[:348] = image.header.binaryblock
    (tmp_path / "in.nii").write_bytes(content)
    with pytest.raises(UserError, match=r"^in\.nii: qform or sform: found"):
        io.read(tmp_path / "in.nii")
