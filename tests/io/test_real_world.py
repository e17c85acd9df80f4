"""What maps the old stored numbers (real-world values, Philips' display values) says the same of the new ones."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save, save_one, slices
from external import needs_dcm2niix, niftis_of
from pydicom.dataset import Dataset

from cdm4mi import io
from cdm4mi.io import write_map


def mapping(slope=0.25, intercept=3.0):
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    item.add_new("RealWorldValueFirstValueMapped", "US", 0)
    item.add_new("RealWorldValueLastValueMapped", "US", 4095)
    return item


def real_world(ds, holder, frame=None):
    item = holder.RealWorldValueMappingSequence[0]
    stored = ds.pixel_array if frame is None else ds.pixel_array[frame]
    assert item.RealWorldValueFirstValueMapped <= stored.min() and stored.max() <= item.RealWorldValueLastValueMapped
    return stored * item.RealWorldValueSlope + item.RealWorldValueIntercept


def philips():
    made = slices(modality="MR", signed=False, bits=12, slope=2.5, intercept=-5.0, rows=32, columns=40)
    for ds in made:
        ds.Manufacturer, ds.RealWorldValueMappingSequence = "Philips Medical Systems", [mapping()]
        block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.0125)
    return made


def test_real_world_values_stay(tmp_path):
    made = philips()
    volume = io.read(save(made, tmp_path / "in"))
    io.write(volume.with_array(volume.array + 0.3), tmp_path / "out")
    for old, path in zip(made, sorted((tmp_path / "out").iterdir()), strict=True):
        new = pydicom.dcmread(path)
        assert float(new.RescaleSlope) == 2.5 / 16
        before = np.frombuffer(old.PixelData, "<u2").reshape(32, 40) * 0.25 + 3.0
        # 0.3 of 2.5 a stored step is worth 0.03 of a real-world step of 0.25
        assert np.allclose(real_world(new, new), before + 0.03, atol=0.25 / 32 + 1e-9)
    io.write(volume, tmp_path / "same")
    same = pydicom.dcmread(sorted((tmp_path / "same").iterdir())[0])
    assert same.RealWorldValueMappingSequence == made[0].RealWorldValueMappingSequence


@needs_dcm2niix
def test_philips_display_values_stay(tmp_path):
    volume = io.read(save(philips(), tmp_path / "in"))
    io.write(volume.with_array(volume.array + 0.3125), tmp_path / "out")
    (before,), (after,) = niftis_of(tmp_path / "in", tmp_path / "a"), niftis_of(tmp_path / "out", tmp_path / "b")
    # display value = value / (rescale slope * scale slope)
    assert np.allclose(after.get_fdata(), before.get_fdata() + 0.3125 / (2.5 * 0.0125), atol=0.5)


@pytest.mark.parametrize("where", ["shared", "per frame"])
def test_mappings_of_a_multi_frame_image(where, tmp_path):
    ds = enhanced("MR", slope=8.0)
    shared, per_frame = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence
    for holder in [shared] if where == "shared" else per_frame:
        holder.RealWorldValueMappingSequence = [mapping()]
        holder.RealWorldValueMappingSequence[0].RealWorldValueLastValueMapped = 65535
    stored = (np.arange(480).reshape(4, 10, 12) * 8).astype("<u2")
    ds.PixelData = stored.tobytes()
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    io.write(volume.with_array(volume.array + 0.25), tmp_path / "out.dcm")
    new = pydicom.dcmread(tmp_path / "out.dcm")
    groups = new.PerFrameFunctionalGroupsSequence
    assert float(groups[0].PixelValueTransformationSequence[0].RescaleSlope) == 0.5
    for n in range(4):
        holder = new.SharedFunctionalGroupsSequence[0] if where == "shared" else groups[n]
        assert np.allclose(real_world(new, holder, n), (stored[n] + 0.25 / 8) * 0.25 + 3.0, atol=0.25 / 32)


def test_a_mapping_by_a_table_is_left_out(tmp_path):
    made = philips()
    for ds in made:
        item = mapping()
        del item.RealWorldValueSlope, item.RealWorldValueIntercept
        item.RealWorldValueLUTData = [0.0] * 4096
        ds.RealWorldValueMappingSequence = [item]
    volume = io.read(save(made, tmp_path / "in"))
    io.write(volume.with_array(volume.array + 0.3), tmp_path / "out")
    assert all("RealWorldValueMappingSequence" not in pydicom.dcmread(p) for p in (tmp_path / "out").iterdir())


def test_floats_stay_floats(tmp_path):
    volume = io.read(save(slices(), tmp_path / "in"))
    write_map(volume.with_array(volume.array * 1e-7), tmp_path / "map.dcm", "Standard deviation")
    small = io.read(tmp_path / "map.dcm")
    io.write(small.with_array(small.array * np.float32(0.7)), tmp_path / "out.dcm")
    assert np.array_equal(io.read(tmp_path / "out.dcm").array, small.array * np.float32(0.7))
    assert "PixelData" not in pydicom.dcmread(tmp_path / "out.dcm")
