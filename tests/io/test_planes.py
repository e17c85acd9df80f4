"""A scan is the same scan along whichever axis a file stores its slices: its planes are those that were acquired."""

import nibabel as nib
import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.io.planes import slice_axis

AFFINE = np.array([[0.8, 0, 0, -30], [0, 0.8, 0.3, 12], [0, -0.1, 5.0, 7], [0, 0, 0, 1.0]])
SHAPE = (9, 12, 14)  # slices, rows, columns as acquired


def scan(times=1):
    shape = (times, *SHAPE) if times > 1 else SHAPE
    return np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)


def save_turned(path, array, axes, dim_info=None, affine=AFFINE):
    """The acquired array (…, k, j, i) as a NIfTI whose axes (i, j, k) come in the order ``axes``."""
    voxels = array.T
    image = nib.Nifti1Image(voxels.transpose([*axes, *range(3, voxels.ndim)]), affine[:, [*axes, 3]])
    if dim_info is not None:
        image.header.set_dim_info(slice=dim_info)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_planes_are_those_of_the_fine_axes(axes, times, tmp_path):
    array = scan(times)
    volume = io.read(save_turned(tmp_path / "in.nii", array, axes))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd", "nhdr"])
def test_the_stored_axes_come_back(ending, tmp_path):
    volume = io.read(save_turned(tmp_path / "in.nii", scan(), (2, 0, 1)))
    io.write(volume, tmp_path / f"turned.{ending}")
    again = io.read(tmp_path / f"turned.{ending}")  # from a file that stores the thick axis first, too
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    io.write(again.with_array(again.array + 1), tmp_path / "out.nii")
    before, after = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii")
    assert after.shape == before.shape == (9, 14, 12)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    np.testing.assert_array_equal(after.get_fdata(), before.get_fdata() + 1)


def test_dim_info_decides_where_the_spacing_does_not(tmp_path):
    even = np.diag([1.0, 1.0, 1.0, 1.0])
    assert io.read(save_turned(tmp_path / "a.nii", scan(), (2, 0, 1), 0, even)).shape == SHAPE
    assert io.read(save_turned(tmp_path / "b.nii", scan(), (2, 0, 1), None, even)).shape == (12, 14, 9)
    # a stale dim_info does not hide a thick axis
    assert io.read(save_turned(tmp_path / "c.nii", scan(), (2, 0, 1), 2)).shape == SHAPE


@pytest.mark.parametrize("axes", [(2, 0, 1), (0, 2, 1), (0, 1, 2)])
def test_one_plane_is_one_slice(axes, tmp_path):
    plane = scan()[:1]
    volume = io.read(save_turned(tmp_path / "in.nii", plane, axes, affine=np.eye(4)))
    np.testing.assert_array_equal(volume.array, plane)
    io.write(volume, tmp_path / "out.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").get_fdata(), nib.load(tmp_path / "in.nii").get_fdata())
    io.write(volume.with_array(volume.array), tmp_path / "out.png")


def test_thin_slices_and_nearly_even_spacings_stay_as_stored():
    assert slice_axis((40, 64, 64), (0.5, 0.7, 0.7)) == 0  # a CT of thin slices: no axis is thicker than both others
    assert slice_axis((40, 64, 64), (1.0, 1.05, 1.0)) == 0
    assert slice_axis((40, 64, 64), (1.0, 1.0, 1.2)) == 2
    assert slice_axis((64, 64, 3), (1.0, 1.0, 1.0)) == 2  # a slab of three planes


def test_inspect_says_where_the_slices_lie(tmp_path):
    turned = dict(io.describe(save_turned(tmp_path / "a.nii", scan(), (2, 0, 1))).facts)
    assert turned["slices lie along"].startswith("the first stored axis")
    assert turned["size"].startswith("9 x 12 x 14")
    assert "slices lie along" not in dict(io.describe(save_turned(tmp_path / "b.nii", scan(), (0, 1, 2))).facts)
