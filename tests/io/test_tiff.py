"""TIFF files of ImageJ, of microscopes, of cameras, written page by page: all pages, and what stands beside them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io.formats import tiff


def stack(count=5, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (count, 20, 24)).astype(np.uint16)


def appended(path, images):
    for image in images:
        tifffile.imwrite(path, image, append=path.exists())
    return path


def test_pages_that_were_written_one_after_the_other(tmp_path):
    images = stack()
    np.testing.assert_array_equal(io.read(appended(tmp_path / "a.tif", images)).array, images)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for image in images:
            writer.write(image, contiguous=False)
    np.testing.assert_array_equal(io.read(tmp_path / "b.tif").array, images)
    Image.fromarray(images[0]).save(
        tmp_path / "c.tif",
        save_all=True,
        append_images=[Image.fromarray(i) for i in images[1:]],
        compression="tiff_lzw",
    )
    volume = io.read(tmp_path / "c.tif")
    np.testing.assert_array_equal(volume.array, images)
    io.write(volume, tmp_path / "d.tif")
    assert tifffile.TiffFile(tmp_path / "d.tif").pages[0].compression == 5


def test_small_values_that_are_white_stay_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(), photometric="miniswhite")
    volume = io.read(tmp_path / "a.tif")
    io.write(volume, tmp_path / "b.tif")
    assert tifffile.TiffFile(tmp_path / "b.tif").pages[0].photometric == 0
    np.testing.assert_array_equal(io.read(tmp_path / "b.tif").array, volume.array)


def test_more_pages_than_files_may_be_open(tmp_path):
    resource = pytest.importorskip("resource")
    path = appended(tmp_path / "a.tif", stack(80))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 20, before[1]))
    try:
        found = io.read(path).array
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    np.testing.assert_array_equal(found, stack(80))


def test_what_is_no_one_stack_is_refused(tmp_path):
    images = stack()
    with pytest.raises(UserError, match="images of 2 kinds"):
        io.read(appended(tmp_path / "sizes.tif", [images[0], images[1, :10]]))
    with pytest.raises(UserError, match="images of 2 kinds"):
        io.read(appended(tmp_path / "types.tif", [images[0], images[1].astype(np.float32)]))
    tifffile.imwrite(
        tmp_path / "channels.tif", images[:4].reshape(2, 2, 20, 24), imagej=True, metadata={"axes": "ZCYX"}
    )
    with pytest.raises(UserError, match="2 channels"):
        io.read(tmp_path / "channels.tif")
    tifffile.imwrite(tmp_path / "a.ome.tif", images[:4].reshape(2, 2, 20, 24), metadata={"axes": "CZYX"})
    with pytest.raises(UserError, match="2 channels"):
        io.read(tmp_path / "a.ome.tif")


def test_imagej_keeps_its_calibration(tmp_path):
    metadata = {"spacing": 3.0, "unit": "mm", "axes": "ZYX", "Info": "seen by me"}
    tifffile.imwrite(tmp_path / "in.tif", stack(), imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    volume = io.read(tmp_path / "in.tif")
    assert volume.spacing == (3.0, 0.25, 0.5) and not volume.warnings
    for name, changed in (("same.tif", 0), ("restored.tif", 0.3)):
        io.write(volume.with_array(volume.array + changed), tmp_path / name)
        with tifffile.TiffFile(tmp_path / name) as written:
            assert written.imagej_metadata["unit"] == "mm" and written.imagej_metadata["Info"] == "seen by me"
            assert written.pages[0].resolution == (2.0, 4.0)
        again = io.read(tmp_path / name)
        assert again.spacing == volume.spacing
        np.testing.assert_allclose(again.array, volume.array + changed, rtol=1e-6)


def test_imagej_stores_signed_numbers_with_a_line(tmp_path):
    """As ImageJ saves a CT: unsigned, with value = c0 + c1 stored."""
    hu = stack().astype(int) - 1000
    metadata = {"axes": "ZYX", "cf": 0, "c0": -32768.0, "c1": 1.0}
    tifffile.imwrite(tmp_path / "in.tif", (hu + 32768).astype(np.uint16), imagej=True, metadata=metadata)
    volume = io.read(tmp_path / "in.tif")
    np.testing.assert_array_equal(volume.array, hu)
    io.write(volume, tmp_path / "out.tif")
    np.testing.assert_array_equal(io.read(tmp_path / "out.tif").array, hu)
    assert tifffile.TiffFile(tmp_path / "out.tif").pages[0].dtype == np.uint16


def test_description_and_resolution_stay_and_ome_is_said_to_go(tmp_path):
    settings = {"resolution": (300, 300), "resolutionunit": "INCH", "datetime": "2020:01:02 03:04:05"}
    tifffile.imwrite(tmp_path / "in.tif", stack()[0], description="my scan", **settings)
    io.write(io.read(tmp_path / "in.tif"), tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        page = written.pages[0]
        assert (page.description, page.resolution, int(page.resolutionunit)) == ("my scan", (300, 300), 2)
        assert page.tags["DateTime"].value == settings["datetime"]
    assert io.read(tmp_path / "out.tif").shape == (1, 20, 24)
    sizes = {"PhysicalSizeX": 500.0, "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 3000.0}
    tifffile.imwrite(tmp_path / "in.ome.tif", stack(), metadata={"axes": "ZYX", **sizes})
    volume = io.read(tmp_path / "in.ome.tif")
    assert volume.spacing == pytest.approx((3.0, 0.25, 0.5))
    assert any("OME" in note for note in io.write(volume, tmp_path / "plain.tif"))
    assert io.read(tmp_path / "plain.tif").spacing == pytest.approx((3.0, 0.25, 0.5))
    io.write(io.read(tmp_path / "in.tif"), tmp_path / "nobody.tif", deidentify=True)
    assert "my scan" not in tifffile.TiffFile(tmp_path / "nobody.tif").pages[0].description


def test_double_precision_stays(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", stack().astype(np.float64))
    io.write(io.read(tmp_path / "in.tif"), tmp_path / "out.tif")
    assert tifffile.TiffFile(tmp_path / "out.tif").pages[0].dtype == np.float64


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_more_than_four_gigabytes_are_written_with_longer_offsets(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(tiff, "_CLASSIC", stack().nbytes - 1)
    tifffile.imwrite(tmp_path / "in.tif", stack(), compression=compression)
    volume = io.read(tmp_path / "in.tif")
    io.write(volume, tmp_path / "out.tif")
    assert tifffile.TiffFile(tmp_path / "out.tif").is_bigtiff
    np.testing.assert_array_equal(io.read(tmp_path / "out.tif").array, volume.array)
