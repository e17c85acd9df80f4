"""What SimpleITK and dcm2niix read of kinds of scans that are easily misread, before and after this program."""

from __future__ import annotations

import struct

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import PLANES, enhanced, save, save_one, set_pixels, slices, uid
from external import needs_dcm2niix, niftis_of
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from cdm4mi import io
from cdm4mi.io.geometry import reorient

sitk = pytest.importorskip("SimpleITK")
TO_RAS = np.diag([-1.0, -1.0, 1.0])


def by_sitk(image):
    """(array, RAS affine) of an image of SimpleITK of three axes, or four of which the last is time."""
    size = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(size, size)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = TO_RAS @ direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = TO_RAS @ image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image), affine


def assert_same(volume, array, affine):
    """The voxels and the geometry are those of the volume, in the volume's order of axes or turned."""
    times = array.reshape(-1, *array.shape[-3:])
    ours = volume.array.reshape(-1, *volume.array.shape[-3:])
    assert len(times) == len(ours)
    for mine, other in zip(ours, times, strict=True):
        turned = reorient(other, affine, mine.shape, volume.affine)  # refuses another grid
        np.testing.assert_allclose(turned, mine, rtol=1e-6, atol=1e-4)


def placed(plane="oblique", spacing=(0.9, 0.7, 2.5)):
    """An oblique affine, RAS."""
    rows, columns = np.reshape(PLANES[plane], (2, 3))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([rows, columns, np.cross(rows, columns)], axis=1) * spacing
    affine[:3, 3] = (-20, 15, -40)
    return affine


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".nhdr", ".mha"])
def test_four_axes(ending, tmp_path):
    array = np.random.default_rng(0).integers(-900, 900, (3, 4, 9, 8)).astype(np.int16)
    image = sitk.JoinSeries([sitk.GetImageFromArray(one) for one in array], 0.0, 2.0)
    affine = placed()
    direction = np.eye(4)
    direction[:3, :3] = TO_RAS @ affine[:3, :3] / np.array([0.9, 0.7, 2.5])
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing((0.9, 0.7, 2.5, 2.0))
    image.SetOrigin((*(TO_RAS @ affine[:3, 3]), 0.0))
    sitk.WriteImage(image, str(tmp_path / f"in{ending}"))
    volume = io.read(tmp_path / f"in{ending}")
    assert volume.times == 3
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert_same(volume, array, affine)
    io.write(volume.with_array(volume.array + 1), tmp_path / f"out{ending}")
    written, where = by_sitk(sitk.ReadImage(str(tmp_path / f"out{ending}")))
    np.testing.assert_allclose(where, affine, atol=1e-4)
    np.testing.assert_array_equal(written, array + 1)
    if ending == ".nii.gz":
        assert nib.load(tmp_path / "out.nii.gz").header.get_zooms()[3] == 2.0


def csa_header(**tags):
    """A CSA header of Siemens ("SV10"): for each tag its texts."""
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, texts in tags.items():
        content += struct.pack("<64si4siii", name.encode(), len(texts), b"FD", 4, len(texts), 77)
        for text in texts:
            data = text.encode() + b"\0"
            content += struct.pack("<4i", len(data), len(data), 77, len(data)) + data + b"\0" * (-len(data) % 4)
    return content


def mosaics(plane, times=2, count=7, rows=10, columns=12):
    """Siemens mosaics of 3 x 3 tiles, one a time point; (data sets, tiles)."""
    tiles = np.random.default_rng(0).integers(0, 900, (times, count, rows, columns))
    made = []
    for time in range(times):
        (ds,) = slices(count=1, plane=plane, modality="MR", slope=None, rows=3 * rows, columns=3 * columns, seed=time)
        full = np.zeros((9, rows, columns), int)
        full[:count] = tiles[time]
        set_pixels(ds, full.reshape(3, 3, rows, columns).swapaxes(1, 2).reshape(ds.Rows, ds.Columns))
        ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        ds.SpacingBetweenSlices, ds.SliceThickness = 3.0, 3.0
        ds.AcquisitionNumber = ds.InstanceNumber = time + 1
        ds.AcquisitionTime = ds.ContentTime = f"10150{time}"
        ds.ScanningSequence, ds.RepetitionTime, ds.ImagedNucleus = "EP", 1000, "1H"
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
        normal = np.cross(*np.reshape(PLANES[plane], (2, 3)))
        header = csa_header(NumberOfImagesInMosaic=[str(count)], SliceNormalVector=[f"{x:.8f}" for x in normal])
        ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
        made.append(ds)
    return made, tiles


@needs_dcm2niix
@pytest.mark.parametrize("plane", PLANES)
def test_a_mosaic(plane, tmp_path):
    made, tiles = mosaics(plane)
    volume = io.read(save(made, tmp_path / "in"))
    np.testing.assert_array_equal(volume.array, tiles)
    io.write(volume.with_array(volume.array + 1), tmp_path / "out")
    for folder, more in (("in", 0), ("out", 1)):
        (nifti,) = niftis_of(tmp_path / folder, tmp_path / f"{folder}_nii")
        assert_same(volume.with_array(volume.array + more), nifti.get_fdata().T, nifti.affine)


def with_dimensions(ds):
    """An enhanced image that says what its frames are numbered by: stack, place in it, time."""
    ds.DimensionOrganizationSequence = [Dataset()]
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid("dimensions")
    ds.DimensionIndexSequence = []
    for keyword in ("StackID", "InStackPositionNumber", "TemporalPositionIndex"):
        one = Dataset()
        one.DimensionOrganizationUID = uid("dimensions")
        one.DimensionIndexPointer = tag_for_keyword(keyword)
        one.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
        ds.DimensionIndexSequence.append(one)
    for group in ds.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        content.DimensionIndexValues = [1, content.InStackPositionNumber, content.TemporalPositionIndex]
    return ds


@needs_dcm2niix
def test_an_enhanced_image_of_three_dimensions(tmp_path):
    """Of another manufacturer dcm2niix makes 12 slices of it, and SimpleITK of any."""
    ds = with_dimensions(enhanced("MR", count=4, times=3))
    ds.Manufacturer = "Philips"
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    volume = io.read(save_one(ds, tmp_path / "in" / "in.dcm"))
    io.write(volume.with_array(volume.array + 1), tmp_path / "out" / "out.dcm")
    for folder, more in (("in", 0), ("out", 1)):
        (nifti,) = niftis_of(tmp_path / folder, tmp_path / f"{folder}_nii")
        assert_same(volume.with_array(volume.array + more), nifti.get_fdata().T, nifti.affine)


def parts_of_a_series(kind):
    """Magnitude and phase, or two echoes, in one series: lists of data sets of each part."""
    made = []
    for part in range(2):
        scaled = {"slope": 1.0 + part, "intercept": -4.0 * part}
        for ds in slices(modality="MR", bits=12, signed=False, seed=part, plane="oblique", **scaled):
            ds.InstanceNumber += 100 * part
            if kind == "phase":
                letter = "MP"[part]
                ds.ImageType = ["ORIGINAL", "PRIMARY", letter, "ND"]
            else:
                ds.EchoTime, ds.EchoNumbers = 10.0 + 5 * part, part + 1
            made.append(ds)
    return made[:5], made[5:]


def sitk_series(paths):
    """What SimpleITK makes of these files of a series, in the order of their positions."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return by_sitk(reader.Execute())


@pytest.mark.parametrize("kind", ["phase", "echoes"])
def test_parts_of_a_series_by_simpleitk(kind, tmp_path):
    save([ds for part in parts_of_a_series(kind) for ds in part], tmp_path / "in")
    for number, (info, volume) in enumerate(io.read_all(tmp_path / "in")):
        io.write(volume.with_array(volume.array + 1), tmp_path / f"out{number}")
        order = sorted(info.paths, key=lambda path: along(path))
        assert_same(volume, *sitk_series(order))
        written = sorted((tmp_path / f"out{number}").iterdir(), key=lambda path: along(path))
        assert_same(volume.with_array(volume.array + 1), *sitk_series(written))
    assert number == 1


def along(path):
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return float(np.cross(*np.reshape(ds.ImageOrientationPatient, (2, 3))) @ np.array(ds.ImagePositionPatient))


@needs_dcm2niix
@pytest.mark.parametrize("kind", ["phase", "echoes"])
def test_parts_of_a_series_by_dcm2niix(kind, tmp_path):
    save([ds for part in parts_of_a_series(kind) for ds in part], tmp_path / "in")
    volumes = [volume for _, volume in io.read_all(tmp_path / "in")]
    read = niftis_of(tmp_path / "in", tmp_path / "niftis")
    assert len(read) == len(volumes) == 2
    for number, (volume, nifti) in enumerate(zip(volumes, read, strict=True)):
        assert_same(volume, nifti.get_fdata().T, nifti.affine)
        io.write(volume.with_array(volume.array + 1), tmp_path / f"out{number}")
        (again,) = niftis_of(tmp_path / f"out{number}", tmp_path / f"niftis{number}")
        assert_same(volume.with_array(volume.array + 1), again.get_fdata().T, again.affine)
