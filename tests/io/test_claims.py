"""What a header claims is held against what the file has before memory is taken, and what a checksum says counts."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pydicom
import pytest
from dicom_series import save, save_one, slices

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io import Volume
from cdm4mi.models.checkpoint import load_model

BYTES = 32 * 2**20
SIDE = 30_000  # 3.6 GB of float32 a slice


def volume(shape=(4, 16, 16)):
    return Volume(np.random.default_rng(0).integers(0, 200, shape), np.diag([0.8, 0.8, 2.0, 1.0]))


def dicom(folder):
    (ds,) = slices(1)
    ds.Rows = ds.Columns = SIDE
    return save_one(ds, folder / "a.dcm")


def float_dicom(folder):
    (ds,) = slices(1, slope=None)
    ds.FloatPixelData = np.zeros((14, 18), "<f4").tobytes()
    del ds.PixelData
    ds.BitsAllocated, ds.Rows, ds.Columns = 32, SIDE, SIDE
    return save_one(ds, folder / "a.dcm")


def nifti(folder, ending=".nii"):
    io.write(volume(), folder / f"a{ending}")
    opener = gzip.open if ending == ".nii.gz" else open
    with opener(folder / f"a{ending}", "rb") as file:
        content = bytearray(file.read())
    content[42:46] = struct.pack("<2h", SIDE, SIDE)
    with opener(folder / f"a{ending}", "wb") as file:
        file.write(content)
    return folder / f"a{ending}"


def metaimage(folder):
    io.write(volume(), folder / "a.mha")
    content = (folder / "a.mha").read_bytes()
    (folder / "a.mha").write_bytes(content.replace(b"DimSize = 16 16 4", f"DimSize = {SIDE} {SIDE} 4".encode()))
    return folder / "a.mha"


def nrrd(folder):
    io.write(volume(), folder / "a.nrrd")
    content = (folder / "a.nrrd").read_bytes()
    (folder / "a.nrrd").write_bytes(content.replace(b"sizes: 16 16 4", f"sizes: {SIDE} {SIDE} 4".encode()))
    return folder / "a.nrrd"


def hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:  # chunks that are not there take no place
        file.create_dataset("data", (4, SIDE, SIDE), "f4", chunks=(1, 16, 16))[0, 0, 0] = 1
    return folder / "a.h5"


def hdf5_of_one_chunk(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        found = file.create_dataset("data", (4, 16, 16), "u1", chunks=(1000, SIDE, SIDE // 10), maxshape=(None,) * 3)
        found.id.write_direct_chunk((0, 0, 0), b"\0" * 1000)
    return folder / "a.h5"


def tiff(folder):
    io.write(volume((1, 16, 16)), folder / "a.tif")
    content = (folder / "a.tif").read_bytes()
    for tag in (256, 257):  # ImageWidth, ImageLength of type SHORT or LONG
        at = max(content.find(struct.pack("<HHL", tag, kind, 1)) for kind in (3, 4))
        content = content[: at + 8] + struct.pack("<L", SIDE) + content[at + 12 :]
    (folder / "a.tif").write_bytes(content)
    return folder / "a.tif"


def png(folder):
    io.write(volume((1, 16, 16)), folder / "a.png")
    content = bytearray((folder / "a.png").read_bytes())
    content[16:24] = struct.pack(">2L", SIDE, SIDE)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    (folder / "a.png").write_bytes(content)
    return folder / "a.png"


def packed_nifti(folder):
    return nifti(folder, ".nii.gz")


MADE = [dicom, float_dicom, nifti, packed_nifti, metaimage, nrrd, hdf5, hdf5_of_one_chunk, tiff, png]


@pytest.mark.parametrize("make", MADE)
def test_more_pixels_than_bytes(make, tmp_path):
    path = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as refused:
            io.read(path)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert str(refused.value).startswith(path.name) and "\n" not in str(refused.value)


def test_a_model_that_claims_more_weights_than_it_has(tmp_path):
    header = b'{"a": {"dtype": "F32", "shape": [100000, 100000], "data_offsets": [0, 40000000000]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    with pytest.raises(UserError, match=r"a\.safetensors: not a readable safetensors file"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".png"])
@pytest.mark.parametrize("how", ["changed", "cut"])
def test_the_checksum_of_compressed_voxels_counts(ending, how, tmp_path):
    path = tmp_path / f"a{ending}"
    io.write(volume((1, 16, 16)), path)
    if ending != ".png":
        mha, nrrd = (b"CompressedData = False", b"CompressedData = True"), (b"encoding: raw", b"encoding: gzip")
        before, after = mha if ending == ".mha" else nrrd
        content = path.read_bytes()
        start = len(content) - 4 * 256
        pack = zlib.compress if ending == ".mha" else gzip.compress
        path.write_bytes(content[:start].replace(before, after) + pack(content[start:]))
    assert np.array_equal(io.read(path).array, volume((1, 16, 16)).array)
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[:-3]
    else:  # the checksum itself: of gzip before the length, of PNG before the last chunk
        content[{".mha": -1, ".nrrd": -8, ".png": -13}[ending]] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged or cut short"):
        io.read(path)


def float_series(folder, fill):
    made = slices(3, slope=None, intercept=None, modality="MR")
    for n, ds in enumerate(made):
        values = np.random.default_rng(n).normal(100, 5, (14, 18)).astype("<f4")
        values[:2] = fill
        ds.FloatPixelData, ds.BitsAllocated = values.tobytes(), 32
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(ds, keyword)
    return save(made, folder)


def test_nan_in_float_pixels_is_padding(tmp_path):
    read = io.read(float_series(tmp_path / "in", np.nan))
    assert read.padding.sum() == 3 * 2 * 18 and (read.array[read.padding] == 0).all()
    assert any("are NaN: taken as padding" in warning for warning in read.warnings)
    io.write(read, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert np.isfinite(np.frombuffer(pydicom.dcmread(path).FloatPixelData, "<f4")).all()


@pytest.mark.parametrize("limit", [None, -900.0])
def test_the_padding_that_float_pixels_state(limit, tmp_path):
    folder = float_series(tmp_path / "in", -1000.5)
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        ds.FloatPixelPaddingValue = -1000.5
        if limit is not None:
            ds.FloatPixelPaddingRangeLimit = limit
        ds.save_as(path)
    read = io.read(folder)
    assert read.padding.sum() == 3 * 2 * 18 and (read.array[read.padding] == -1000.5).all()
    assert any("14.3% of the pixels are padding" in warning for warning in read.warnings)
    io.write(read, tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").padding, read.padding)


def test_infinite_float_pixels_are_one_line(tmp_path):
    folder = float_series(tmp_path / "in", np.inf)
    with pytest.raises(UserError, match=r"voxel\(s\) are infinite"):
        io.read(folder)
