"""DICOM in, DICOM out: values, geometry and order survive for every orientation, stored type and transfer syntax."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import PLANES, save, save_one, set_pixels, slices, stored_values
from pydicom.uid import UID

from cdm4mi import io

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}
STORED = {
    "signed 16": {"signed": True, "bits": 16},
    "unsigned 12": {"signed": False, "bits": 12},
    "no rescale": {"modality": "MR", "signed": False, "bits": 12, "slope": None},
    "slope of its own in each slice": {"modality": "PT", "slope": [0.11, 0.2, 0.37, 1.5, 3.25], "intercept": 0.0},
    "MONOCHROME1 CT": {"photometric": "MONOCHROME1"},
    "8 bits": {"modality": "MR", "signed": False, "bits": 8, "slope": None},
}


def check_round_trip(made, folder, tmp_path):
    """Values are stored * slope + intercept in order of place; written unchanged and read again they are the same."""
    expected = np.stack(
        [stored_values(ds)[0] * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0)) for ds in made]
    ).astype(np.float32)
    volume = io.read(folder)
    assert np.array_equal(volume.array, expected)
    assert volume.warnings == []
    for k, ds in enumerate(made):
        assert np.allclose(volume.slice_affine(k)[:3, 3], np.array(ds.ImagePositionPatient) * [-1, -1, 1], atol=1e-5)
    assert io.write(volume, tmp_path / "out") == []
    again = io.read(tmp_path / "out")
    assert np.array_equal(again.array, volume.array)
    assert np.array_equal(again.affine, volume.affine)
    assert (again.modality, again.units) == (volume.modality, volume.units)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("stored", STORED)
def test_orientation_and_stored_type(plane, stored, tmp_path):
    made = slices(plane=plane, **STORED[stored])
    check_round_trip(made, save(made, tmp_path / "in"), tmp_path)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [True, False])
def test_transfer_syntax(syntax, signed, tmp_path):
    made = slices(signed=signed, bits=12, rows=32, columns=40)
    check_round_trip(made, save(made, tmp_path / "in", UID(SYNTAXES[syntax])), tmp_path)


def test_file_names_change_nothing(tmp_path):
    made = slices()
    first = io.read(save(made, tmp_path / "a", seed=1))
    second = io.read(save(made, tmp_path / "b", seed=2))
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(first.affine, second.affine)


@pytest.mark.parametrize("plane", PLANES)
def test_geometry_agrees_with_simpleitk(plane, tmp_path):
    folder = save(slices(plane=plane), tmp_path / "in")
    volume = io.read(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    for i, j, k in [(0, 0, 0), (17, 13, 4), (3, 9, 2), (0, 13, 1)]:
        place = np.array(image.TransformIndexToPhysicalPoint((i, j, k))) * [-1, -1, 1]
        assert np.allclose((volume.affine @ [i, j, k, 1])[:3], place, atol=0.01)
        assert volume.array[k, j, i] == values[k, j, i]


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_changed_values_are_rounded_finely_and_unchanged_ones_stay(modality, tmp_path):
    made = slices(modality=modality, bits=12, slope=None if modality == "MR" else 1.0, intercept=0.0)
    volume = io.read(save(made, tmp_path / "in"))
    changed = volume.array.copy()
    changed[:, :7] += np.random.default_rng(0).normal(0, 5, changed[:, :7].shape)
    io.write(volume.with_array(changed), tmp_path / "out")
    again = io.read(tmp_path / "out").array
    assert np.abs(again - changed).max() <= 0.5 / 16 + 1e-4
    assert np.array_equal(again[:, 7:], volume.array[:, 7:])


def test_values_beyond_16_bits_take_a_coarser_slope(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    wide = volume.array * 20
    io.write(volume.with_array(wide), tmp_path / "out")
    assert np.abs(io.read(tmp_path / "out").array - wide).max() <= np.ptp(wide) / 2**15


def test_negative_values_of_an_unsigned_source(tmp_path):
    volume = io.read(save(slices(signed=False, bits=12, intercept=-1024.0), tmp_path / "in"))
    lower = volume.array - 500.25
    io.write(volume.with_array(lower), tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").array, lower)


def test_unused_bits_are_ignored(tmp_path):
    ds = slices(count=1, signed=True, bits=12, intercept=0.0)[0]
    clean = stored_values(ds)
    ds.PixelData = ((clean.view("<u2") & 0x0FFF) | 0xA000).tobytes()
    assert np.array_equal(io.read(save_one(ds, tmp_path / "a.dcm")).array, clean.astype(np.float32))


def test_padding_is_marked_and_kept(tmp_path):
    made = slices(bits=12)
    for ds in made:
        stored = stored_values(ds)[0].copy()
        stored[:3] = -2000
        set_pixels(ds, stored)
        ds.add_new("PixelPaddingValue", "SS", -2000)
    volume = io.read(save(made, tmp_path / "in"))
    assert volume.padding is not None and volume.padding[:, :3].all() and not volume.padding[:, 3:].any()
    assert any("padding" in warning for warning in volume.warnings)
    for k, array in enumerate([volume.array, np.where(volume.padding, volume.array, volume.array + 0.25)]):
        io.write(volume.with_array(array), tmp_path / f"out{k}")
        again = io.read(tmp_path / f"out{k}")
        assert np.array_equal(again.padding, volume.padding)
        assert np.array_equal(again.array, array)


def test_monochrome1_brightness_is_turned_round_and_back(tmp_path):
    ds = slices(count=1, modality="CR", signed=False, bits=12, slope=0.684, intercept=200.0, photometric="MONOCHROME1")[
        0
    ]
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    stored = stored_values(ds)
    assert np.argmin(stored) == np.argmax(volume.array)
    assert np.isclose(volume.array.min() + (stored.max() * 0.684 + 200), 4095 * 0.684 + 400, atol=1e-2)
    io.write(volume, tmp_path / "out.dcm")
    assert np.array_equal(io.read(tmp_path / "out.dcm").array, volume.array)
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.PhotometricInterpretation == "MONOCHROME1" and np.array_equal(written.pixel_array, stored[0])


def test_modality_lut_is_applied_and_replaced_by_a_rescale(tmp_path):
    ds = slices(count=1, modality="CR", signed=False, bits=8, slope=None)[0]
    table = (np.arange(256) ** 2 // 2).astype("<u2")
    lut = pydicom.Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [256, 0, 16], "US"
    lut.add_new("LUTData", "OW", table.tobytes())
    ds.ModalityLUTSequence = [lut]
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    assert np.array_equal(volume.array[0], table[stored_values(ds)[0]].astype(np.float32))
    io.write(volume, tmp_path / "out.dcm")
    assert np.array_equal(io.read(tmp_path / "out.dcm").array, volume.array)
    assert "ModalityLUTSequence" not in pydicom.dcmread(tmp_path / "out.dcm")
