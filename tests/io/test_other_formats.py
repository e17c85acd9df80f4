"""MHA, MHD and NRRD against SimpleITK; HDF5, TIFF and PNG with what their own libraries write."""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from dicom_series import noise
from PIL import Image

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io.volume import Volume

ITK = [".mha", ".mhd", ".nrrd", ".nhdr", ".nii.gz"]
TURN = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


def itk_image(dtype=np.int16, axes=3):
    shape = (3, 5, 6, 7)[-axes:]
    image = sitk.GetImageFromArray(noise(shape, 0, 250, seed=2).astype(dtype), isVector=False)
    if axes == 3:
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-10.5, 20.25, 33.0))
        image.SetDirection(TURN.ravel())
    return image


@pytest.mark.parametrize("ending", ITK)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_itk_and_we_read_each_other(ending, compressed, dtype, tmp_path):
    image = itk_image(dtype)
    sitk.WriteImage(image, str(tmp_path / f"in{ending}"), compressed)
    volume = io.read(tmp_path / f"in{ending}")
    assert io.write(volume, tmp_path / f"out{ending}") == []
    again = sitk.ReadImage(str(tmp_path / f"out{ending}"))
    assert again.GetPixelID() == image.GetPixelID()
    for one in (image, again):
        assert np.array_equal(volume.array, sitk.GetArrayFromImage(one).astype(np.float32))
        for index in [(0, 0, 0), (6, 0, 4), (2, 5, 1)]:
            place = np.array(one.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
            assert np.allclose((volume.affine @ [*index, 1])[:3], place, atol=1e-3)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("axes", [2, 4])
def test_two_and_four_axes(ending, axes, tmp_path):
    image = itk_image(axes=axes)
    sitk.WriteImage(image, str(tmp_path / f"in{ending}"))
    volume = io.read(tmp_path / f"in{ending}")
    values = sitk.GetArrayFromImage(image)
    assert np.array_equal(volume.array, values if axes == 4 else values[None])
    io.write(volume, tmp_path / f"out{ending}")
    assert np.array_equal(io.read(tmp_path / f"out{ending}").array, volume.array)


def test_nrrd_in_ras_with_big_endian_values(tmp_path):
    values = noise((4, 5, 6), -500, 500).astype(">i2")
    header = (
        "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 6 5 4\n"
        "space directions: (0.5,0,0) (0,-0.6,0) (0,0,3)\nkinds: domain domain domain\nendian: big\nencoding: raw\n"
        "space origin: (1,2,3)\nnote:=kept\n\n"
    )
    (tmp_path / "in.nrrd").write_bytes(header.encode() + values.tobytes())
    volume = io.read(tmp_path / "in.nrrd")
    assert np.array_equal(volume.array, values)
    assert np.allclose(volume.affine, [[0.5, 0, 0, 1], [0, -0.6, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
    io.write(volume, tmp_path / "out.nrrd")
    assert b"note:=kept" in (tmp_path / "out.nrrd").read_bytes()
    assert np.allclose(io.read(tmp_path / "out.nrrd").affine, volume.affine)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_fractions_are_not_rounded_to_integers(ending, tmp_path):
    sitk.WriteImage(itk_image(), str(tmp_path / f"in{ending}"))
    volume = io.read(tmp_path / f"in{ending}")
    changed = volume.with_array(volume.array + 0.3)
    assert "float32 instead of int16" in io.write(changed, tmp_path / f"out{ending}")[0]
    assert np.array_equal(io.read(tmp_path / f"out{ending}").array, changed.array)


def test_mha_of_colour_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(tmp_path / "in.mha"))
    with pytest.raises(UserError, match="several channels"):
        io.read(tmp_path / "in.mha")


@pytest.mark.parametrize("key", ["data", "reconstruction_rss", "reconstruction_esc"])
@pytest.mark.parametrize("shape", [(9, 8), (3, 9, 8)])
def test_hdf5(key, shape, tmp_path):
    values = noise(shape, 0, 256).astype(np.uint8 if key == "data" else np.float32)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset(key, data=values)
        file.attrs["acquisition"], file.attrs["patient_id"], file.attrs["max"] = "AXT1", "SECRET", 1.0
    volume = io.read(tmp_path / "in.h5")
    assert np.array_equal(volume.array, values.reshape(-1, 9, 8))
    io.write(volume, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file[key][()], values) and file[key].dtype == values.dtype
        assert file.attrs["acquisition"] == "AXT1" and file.attrs["max"] == values.max()
    assert b"SECRET" not in (tmp_path / "out.h5").read_bytes()


def test_hdf5_patch_folder_goes_out_as_it_came(tmp_path):
    (tmp_path / "in").mkdir()
    patches = noise((12, 16, 16), 0, 256).astype(np.uint8)
    for n, patch in enumerate(patches):
        with h5py.File(tmp_path / "in" / f"patch{n:03d}.hdf5", "w") as file:
            file["data"] = patch
    volume = io.read(tmp_path / "in")
    assert np.array_equal(volume.array, patches)
    io.write(volume, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in (tmp_path / "in").iterdir())
    assert np.array_equal(io.read(tmp_path / "out").array, patches)


def test_hdf5_that_only_claims_to_be_large_is_refused(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("data", shape=(100000, 4096, 4096), dtype="u1", chunks=(1, 64, 64))
    with pytest.raises(UserError, match="100000 x 4096 x 4096"):
        io.read(tmp_path / "in.h5")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_tiff_stack_of_another_program(dtype, tmp_path):
    values = noise((3, 9, 8), 0, 200).astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack")
    volume = io.read(tmp_path / "in.tif")
    assert np.array_equal(volume.array, values)
    assert io.write(volume, tmp_path / "out.tif") == []
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), values)


def test_tiff_of_16_bits_has_its_scale_in_the_metadata(tmp_path):
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    volume = Volume((noise((3, 9, 8), -1000, 2000) / 7).astype(np.float32), affine, "CT", units="HU")
    io.write(volume, tmp_path / "a.tif")
    assert np.array_equal(io.read(tmp_path / "a.tif").array, volume.array)
    io.write(volume, tmp_path / "b.tif", dtype=np.uint16)
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint16
    again = io.read(tmp_path / "b.tif")
    assert np.abs(again.array - volume.array).max() < 3000 / 7 / 65535
    assert np.allclose(again.affine, affine) and (again.modality, again.units) == ("CT", "HU")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(dtype, tmp_path):
    values = noise((9, 8), 0, np.iinfo(dtype).max + 1).astype(dtype)
    Image.fromarray(values).save(tmp_path / "in.png")
    volume = io.read(tmp_path / "in.png")
    assert np.array_equal(volume.array[0], values)
    assert io.write(volume, tmp_path / "out.png") == []
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), values)
    assert io.write(volume.with_array(volume.array - 0.4), tmp_path / "new.png")


@pytest.mark.parametrize("name", ["in.png", "in.tif", "planes.tif", "pages.tif"])
def test_colour_goes_out_as_it_came(name, tmp_path):
    values = noise((3, 9, 8, 3), 0, 255).astype(np.uint8)
    Image.fromarray(values[0]).save(tmp_path / "in.png")
    tifffile.imwrite(tmp_path / "in.tif", values[0], photometric="rgb")
    separate = np.moveaxis(values[0], -1, 0)
    tifffile.imwrite(tmp_path / "planes.tif", separate, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pages.tif", values, photometric="rgb")
    volume = io.read(tmp_path / name)
    expected = values if name == "pages.tif" else values[:1]
    assert volume.channel_axis == -1 and volume.channels == 3 and np.array_equal(volume.array, expected)
    assert np.array_equal(volume.images(), np.moveaxis(expected, -1, 1))
    assert np.array_equal(volume.arranged(volume.images()), volume.array)
    out = tmp_path / ("out.png" if name == "in.png" else "out.tif")
    assert io.write(volume, out) == []
    again = io.read(out)
    assert np.array_equal(again.array, volume.array) and again.channel_axis == -1
    assert again.source is not None and again.source.dtype == np.uint8


def test_colour_that_is_not_understood_is_refused(tmp_path):
    values = noise((9, 8, 4), 0, 255).astype(np.uint8)
    Image.fromarray(values, "RGBA").save(tmp_path / "in.png")
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("in.png", "in.tif"):
        with pytest.raises(UserError, match="transparent"):
            io.read(tmp_path / name)
    # Pillow would read the upper 8 of 16 bits without a word
    rows = b"".join(b"\0" + values[row, :, :3].astype(">u2").tobytes() for row in range(9))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 9, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(UserError, match="RGB of 16 bits"):
        io.read(tmp_path / "deep.png")


@pytest.mark.parametrize("name", ["out.nii.gz", "out.mha", "out.nrrd", "out.h5"])
def test_colour_does_not_become_time(name, tmp_path):
    Image.fromarray(noise((9, 8, 3), 0, 255).astype(np.uint8)).save(tmp_path / "in.png")
    volume = io.read(tmp_path / "in.png")
    with pytest.raises(
        UserError, match=r"is a colour image, expected a grey one for .* \(colour goes to .tif or .png\)"
    ):
        io.write(volume, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    volume = Volume(noise((3, 9, 8), 0, 250), np.diag([0.7, 0.8, 2.5, 1.0]))
    for ending in (".nii", ".nii.gz", ".mha", ".nrrd", ".h5", ".tif"):
        io.write(volume, tmp_path / f"a{ending}")
        (tmp_path / f"a{ending}").rename(tmp_path / "scan.bin")
        assert np.array_equal(io.read(tmp_path / "scan.bin").array, volume.array)
    (tmp_path / "scan.bin").write_bytes(b"nothing that is known")
    with pytest.raises(UserError, match=r"scan.bin: not in a format that is known"):
        io.read(tmp_path / "scan.bin")


def test_hdf5_patches_of_one_name_and_without_a_patient(tmp_path):
    for person in ("anna", "berta"):
        (tmp_path / "in" / person).mkdir(parents=True)
        with h5py.File(tmp_path / "in" / person / "patch.h5", "w") as file:
            file["data"] = noise((8, 9), 0, 255, seed=len(person)).astype(np.uint8)
    volume = io.read(tmp_path / "in")
    io.write(volume, tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").array, volume.array)
    io.write(volume, tmp_path / "nobody", deidentify=True)
    assert sorted(path.name for path in (tmp_path / "nobody").iterdir()) == ["000001.h5", "000002.h5"]
    assert np.array_equal(io.read(tmp_path / "nobody").array, volume.array)
