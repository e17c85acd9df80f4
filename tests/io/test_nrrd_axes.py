"""NRRD and MetaImage files as ITK writes them: two and four axes, voxels in a list of files."""

import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.errors import UserError

sitk = pytest.importorskip("SimpleITK")


def voxels(*shape):
    return np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_two_and_four_axes_stay_what_they_are(ending, tmp_path):
    image = sitk.GetImageFromArray(voxels(5, 9, 8))
    image.SetSpacing((0.9, 1.1, 3.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    series = sitk.JoinSeries([image, image + 1, image + 2], 0.0, 2.0)
    for name, made in (("four", series), ("two", image[:, :, 2])):
        sitk.WriteImage(made, str(tmp_path / f"{name}.{ending}"))
        volume = io.read(tmp_path / f"{name}.{ending}")
        io.write(volume.with_array(volume.array + 1), tmp_path / f"{name}_out.{ending}")
        after = sitk.ReadImage(str(tmp_path / f"{name}_out.{ending}"))
        assert (after.GetSize(), after.GetNumberOfComponentsPerPixel()) == (made.GetSize(), 1)
        assert after.GetSpacing() == pytest.approx(made.GetSpacing())
        assert after.GetOrigin() == pytest.approx(made.GetOrigin())
        np.testing.assert_array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(made) + 1)


def test_four_axes_of_another_format_are_scalars_to_itk(tmp_path):
    volume = io.Volume(voxels(3, 5, 9, 8), np.diag([0.9, 1.1, 3.0, 1.0]))
    io.write(volume, tmp_path / "out.nrrd")
    assert sitk.ReadImage(str(tmp_path / "out.nrrd")).GetSize() == (8, 9, 5, 3)
    np.testing.assert_array_equal(io.read(tmp_path / "out.nrrd").array, volume.array)


def test_an_nhdr_and_an_mhd_of_one_stem_leave_each_other_alone(tmp_path):
    volume = io.Volume(voxels(5, 9, 8), np.eye(4))
    io.write(volume, tmp_path / "scan.mhd")
    io.write(volume.with_array(volume.array + 1), tmp_path / "scan.nhdr")
    with pytest.raises(UserError, match="exists"):
        io.write(volume, tmp_path / "scan.nhdr")
    np.testing.assert_array_equal(io.read(tmp_path / "scan.mhd").array, volume.array)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.nhdr"))).max() == volume.array.max() + 1
    assert [info.kind for info in io.list_scans(tmp_path).scans] == ["mha", "nrrd"]


HEADS = {
    "nhdr": (
        "NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: 8 9 5\nspace directions: (1,0,0) (0,1,0) (0,0,3)\n"
        "space origin: (0,0,0)\nendian: little\nencoding: raw\ndata file: "
    ),
    "mhd": (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nElementSpacing = 1 1 3\n"
        "DimSize = 8 9 5\nElementType = MET_SHORT\nElementDataFile = "
    ),
}


@pytest.mark.parametrize("ending", HEADS)
def test_voxels_in_a_list_of_files(ending, tmp_path):
    array = voxels(5, 9, 8)
    for k, plane in enumerate(array):
        (tmp_path / f"s{k}.raw").write_bytes(plane.tobytes())
    named = "LIST\n" + "".join(f"s{k}.raw\n" for k in range(5))
    for name, files in (("list", named), ("pattern", "s%d.raw 0 4 1\n")):
        (tmp_path / f"{name}.{ending}").write_text(HEADS[ending] + files)
        volume = io.read(tmp_path / f"{name}.{ending}")
        np.testing.assert_array_equal(volume.array, array)
        assert len(volume.source.paths) == 6  # none of which is written over
        io.write(volume, tmp_path / "out" / f"{name}.{ending}")
        np.testing.assert_array_equal(io.read(tmp_path / "out" / f"{name}.{ending}").array, array)
    (tmp_path / f"bad.{ending}").write_text(HEADS[ending] + "s%d.raw 0 3 1\n")
    with pytest.raises(UserError, match="4 data files"):
        io.read(tmp_path / f"bad.{ending}")
    (tmp_path / f"bad.{ending}").write_text(HEADS[ending] + "s%d.raw 0\n")
    with pytest.raises(UserError, match="expected a pattern"):
        io.read(tmp_path / f"bad.{ending}")
