"""HDF5 files keep what they hold beside the image: attributes and compression of the data set, and other data sets."""

import h5py
import numpy as np
import pytest

from cdm4mi import io

IMAGE = np.random.default_rng(0).integers(0, 900, (4, 9, 8)).astype(np.uint16)


def make(path, image=IMAGE):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=image, compression="gzip", shuffle=True, chunks=(1, 9, 8)[-image.ndim :])
        file["data"].attrs["spacing_mm"] = [3.0, 1.0, 1.0]
        file["mask"] = image > 300
        file["labels/organ"] = [1, 2]
        file["labels"].attrs["by"] = "me"
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/data")
        file.attrs["scanner"] = "made"
    return path


@pytest.mark.parametrize("changed", [0, 0.3])
def test_everything_beside_the_image_stays(changed, tmp_path):
    volume = io.read(make(tmp_path / "in.h5"))
    io.write(volume.with_array(volume.array + changed), tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["data"], IMAGE + changed, rtol=1e-6)
        data = file["data"]
        assert (data.compression, data.shuffle, data.chunks) == ("gzip", True, (1, 9, 8))
        assert list(data.attrs["spacing_mm"]) == [3.0, 1.0, 1.0] and file.attrs["scanner"] == "made"
        np.testing.assert_array_equal(file["mask"], IMAGE > 300)
        assert list(file["labels/organ"]) == [1, 2] and file["labels"].attrs["by"] == "me"
        assert "elsewhere" not in file


def test_each_file_of_a_folder_keeps_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(3):
        make(tmp_path / "in" / f"{k}.h5", IMAGE[k])
    io.write(io.read(tmp_path / "in"), tmp_path / "out")
    for k in range(3):
        with h5py.File(tmp_path / "out" / f"{k}.h5") as file:
            np.testing.assert_array_equal(file["mask"], IMAGE[k] > 300)


def test_what_is_gone_or_must_name_nobody_is_left_out(tmp_path):
    volume = io.read(make(tmp_path / "in.h5"))
    io.write(volume, tmp_path / "nobody.h5", deidentify=True)
    with h5py.File(tmp_path / "nobody.h5") as file:
        assert list(file) == ["data"] and not file["data"].attrs
    (tmp_path / "in.h5").unlink()
    assert any("left out" in note for note in io.write(volume, tmp_path / "out.h5"))
    np.testing.assert_array_equal(io.read(tmp_path / "out.h5").array, IMAGE)
