"""Arrays in files: what is read and written is the same as in memory, and the memory does not grow with the scan."""

import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_series import enhanced, save_one
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from scans_on_disk import dicom_series

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io import arrays


@pytest.fixture(autouse=True)
def every_array_is_large(monkeypatch):
    monkeypatch.setattr(arrays, "SMALL", 0)
    monkeypatch.setattr(arrays, "HELD", 1000)


def scan(shape=(7, 12, 10)):
    return (300 * np.random.default_rng(0).standard_normal(shape)).round()


def nifti(path, array, stored=np.int16):
    nib.save(nib.Nifti1Image(array.T.astype(stored), np.diag([0.7, 0.8, 2.5, 1.0])), path)
    return path


def with_nan(path, array):
    array[2, :3, 4:] = np.nan
    return nifti(path, array, np.float32)


def turned(path, array):
    """Slices along the first stored axis of a NIfTI with time points."""
    nib.save(nib.Nifti1Image(array.T.astype(np.float32), np.diag([4.0, 0.8, 0.8, 1.0])), path)
    return path


def written(path, array):
    first = nifti(path.with_name("first.nii"), array)
    volume = replace(io.read(first), source=None)
    io.write(volume, path, dtype=np.int16)
    return path


def tiff(**settings):
    """Times a stack of slices, or as the settings say."""

    def make(path, array):
        tifffile.imwrite(path, scan((2, 7, 12, 10)).astype(np.int16), **settings)
        return path

    return make


def pages(path, array):
    for plane in array.astype(np.int16):
        tifffile.imwrite(path, plane, append=path.exists())
    return path


def colours(path, array):
    tifffile.imwrite(path, (scan((4, 12, 10, 3)) % 256).astype(np.uint8), photometric="rgb")
    return path


MADE = {
    "int16.nii": nifti,
    "packed.nii.gz": nifti,
    "nan.nii.gz": with_nan,
    "turned.nii.gz": lambda path, array: turned(path, scan((3, 9, 12, 10))),
    "one.mha": written,
    "one.nrrd": written,
    "one.h5": written,
    "one.tiff": written,
    "packed.tiff": tiff(compression="zlib", predictor=True, metadata={"axes": "TZYX"}),
    "turned.tiff": tiff(byteorder=">", metadata={"axes": "ZTYX"}),
    "pages.tiff": pages,
    "colours.tiff": colours,
}


@pytest.mark.parametrize("name", MADE)
def test_a_file_is_read_and_written_as_in_memory(name, tmp_path):
    source = MADE[name](tmp_path / name, scan())
    expected = io.read(source)
    io.write(expected, tmp_path / f"memory-{name}")
    before = set(tmp_path.iterdir())
    with arrays.arrays_in(tmp_path):
        volume = io.read(source)
        assert arrays.in_file(volume.array)
        io.write(volume, tmp_path / f"disk-{name}")
    np.testing.assert_array_equal(volume.array, expected.array)
    if expected.padding is not None:
        np.testing.assert_array_equal(volume.padding, expected.padding)
    assert io.input_record(volume) == io.input_record(expected)
    assert (tmp_path / f"disk-{name}").read_bytes() == (tmp_path / f"memory-{name}").read_bytes()
    assert set(tmp_path.iterdir()) - before == {tmp_path / f"disk-{name}"}


def test_a_folder_of_patches_is_read_and_written_as_in_memory(tmp_path):
    (tmp_path / "patches").mkdir()
    for n, plane in enumerate(scan()):
        io.write(io.Volume(plane[None].astype(np.float32), np.eye(4)), tmp_path / "patches" / f"{n}.h5")
    expected = io.read(tmp_path / "patches")
    with arrays.arrays_in(tmp_path):
        volume = io.read(tmp_path / "patches")
        assert arrays.in_file(volume.array)
        io.write(volume, tmp_path / "disk")
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(io.read(tmp_path / "disk").array, expected.array)


def read_and_written(source, tmp_path, ending):
    """A scan read with large arrays in files, and in memory; a little brighter, both are written: disk and memory."""
    expected = io.read(source)
    with arrays.arrays_in(tmp_path):
        volume = io.read(source)
        assert arrays.in_file(volume.array)
        io.write(volume.with_array(volume.array + np.float32(0.3)), tmp_path / f"disk{ending}")
    io.write(expected.with_array(expected.array + np.float32(0.3)), tmp_path / f"memory{ending}")
    np.testing.assert_array_equal(volume.array, expected.array)
    return volume, expected


def test_a_series_is_read_and_written_as_in_memory(tmp_path):
    read_and_written(dicom_series(tmp_path / "series", 5), tmp_path, "")
    np.testing.assert_array_equal(io.read(tmp_path / "disk").array, io.read(tmp_path / "memory").array)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_the_frames_of_one_file_are_read_and_written_as_in_memory(syntax, tmp_path):
    source = save_one(enhanced("CT", count=6), tmp_path / "frames.dcm", syntax)
    read_and_written(source, tmp_path, ".dcm")
    disk, memory = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("disk", "memory"))
    assert disk.PixelData == memory.PixelData and disk.LargestImagePixelValue == memory.LargestImagePixelValue


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_frames_of_floats_are_read_and_written_as_in_memory(keyword, syntax, tmp_path):
    dataset = enhanced("CT", count=6)
    for absent in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, absent)
    values = scan((6, 10, 12)) / 7
    values[2, 3, 4:7] = np.nan
    dataset.BitsAllocated = 32 if keyword == "FloatPixelData" else 64
    setattr(dataset, keyword, values.astype(f"<f{dataset.BitsAllocated // 8}").tobytes())
    source = save_one(dataset, tmp_path / "frames.dcm", syntax)
    volume, expected = read_and_written(source, tmp_path, ".dcm")
    assert np.count_nonzero(expected.padding) == 3
    assert expected.source.dtype == np.dtype(f"f{dataset.BitsAllocated // 8}")
    np.testing.assert_array_equal(volume.padding, expected.padding)
    disk, memory = (pydicom.dcmread(tmp_path / f"{name}.dcm")[keyword].value for name in ("disk", "memory"))
    assert disk == memory and len(disk) == expected.array.size * dataset.BitsAllocated // 8


@pytest.mark.parametrize("many_files", [True, False])
@pytest.mark.parametrize("deidentify", [True, False])
def test_a_map_of_floats_is_written_as_in_memory(many_files, deidentify, tmp_path):
    source = (
        dicom_series(tmp_path / "series", 5) if many_files else save_one(enhanced("CT", count=6), tmp_path / "in.dcm")
    )
    volume = io.read(source)
    spread = np.random.default_rng(1).random(volume.shape, np.float32)
    io.write_map(volume.with_array(spread), tmp_path / "memory.dcm", "Standard deviation", deidentify=deidentify)
    with arrays.arrays_in(tmp_path):
        held = volume.with_array(arrays.converted(spread, np.float32, lambda plane: plane))
        io.write_map(held, tmp_path / "disk.dcm", "Standard deviation", deidentify=deidentify)
    for name in ("memory", "disk"):
        found = io.read(tmp_path / f"{name}.dcm")
        np.testing.assert_array_equal(found.array, spread)
        np.testing.assert_allclose(found.affine, volume.affine, atol=1e-5)


def test_a_packed_meta_image_keeps_its_packing(tmp_path):
    path = written(tmp_path / "a.mha", scan())
    volume = io.read(path)
    volume.source.header["CompressedData"] = "True"
    io.write(volume, tmp_path / "packed.mha")
    with arrays.arrays_in(tmp_path):
        again = io.read(tmp_path / "packed.mha")
        io.write(again, tmp_path / "again.mha")
    np.testing.assert_array_equal(again.array, volume.array)
    assert (tmp_path / "again.mha").read_bytes() == (tmp_path / "packed.mha").read_bytes()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (3, 0, 1, 2), (2, 3, 1, 0)])
def test_axes_in_another_order_are_copied_block_by_block(order, tmp_path):
    expected = scan((3, 8, 11, 5)).astype(np.float32)
    with arrays.arrays_in(tmp_path):
        array = arrays.converted(expected, np.float32, lambda plane: plane)
        found = arrays.contiguous(array.transpose(order)[:, ::-1], np.float32)
    assert found.flags.c_contiguous and arrays.in_file(found)
    np.testing.assert_array_equal(found, expected.transpose(order)[:, ::-1])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_one_time_point_is_copied_block_by_block_too(order, tmp_path, monkeypatch):
    expected = scan((1, 8, 11, 5)).astype(np.float32)
    released = []
    monkeypatch.setattr(arrays, "HELD", expected.nbytes // 4)
    monkeypatch.setattr(arrays, "release", released.append)
    with arrays.arrays_in(tmp_path):
        array = arrays.converted(expected, np.float32, lambda plane: plane)
        released.clear()
        found = arrays.contiguous(array.transpose(order)[..., ::-1], np.float32)
    np.testing.assert_array_equal(found, expected.transpose(order)[..., ::-1])
    assert len(released) >= 2 * 4


def test_what_was_changed_in_memory_alone_is_not_given_back(tmp_path):
    np.save(tmp_path / "a.npy", scan())
    private = np.load(tmp_path / "a.npy", mmap_mode="c")
    private[...] = 7
    arrays.release(private)
    assert (private == 7).all()


def test_a_full_disk_is_one_line_before_anything_is_computed(tmp_path, monkeypatch):
    def full(descriptor, first, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays.os, "posix_fallocate", full)
    with arrays.arrays_in(tmp_path), pytest.raises(UserError, match="No space left on device"):
        arrays.empty((2, 3), np.float32)
    assert list(tmp_path.iterdir()) == []


GROWTH = """
import re, sys
from pathlib import Path
import numpy as np
from cdm4mi import io
from cdm4mi.io import arrays
from cdm4mi.io.formats import tiff
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
arrays.HELD, folder = 2**20, Path(sys.argv[1])
for slices in (20, 200):  # of 128 KiB as they are held
    source = folder / f"{slices}.nii.gz"
    stored = np.broadcast_to(np.arange(256, dtype=np.int16), (slices, 128, 256))
    with arrays.arrays_in(folder):
        io.write(io.Volume(arrays.converted(stored, np.float32, lambda p: p), np.eye(4)), source, dtype=np.int16)
        io.write(io.read(source), folder / f"{slices}.mha")
        io.write(io.read(source), folder / f"{slices}.tiff")
        again = io.read(folder / f"{slices}.tiff")
        again.source.header.tags["compression"] = "zlib"
        io.write(again, folder / f"packed-{slices}.tiff")
        io.read(folder / f"packed-{slices}.tiff")
    print(peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_does_not_grow_with_the_slices(tmp_path):
    done = subprocess.run([sys.executable, "-c", GROWTH, tmp_path], capture_output=True, text=True, check=True)
    few, many = map(float, done.stdout.split())
    assert many - few < 10  # MiB, where the values that were added are 22
