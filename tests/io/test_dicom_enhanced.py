"""Enhanced multi-frame CT, MR and PET: frames ordered by place and time, written back as one image."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save_one, stored_values

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io import Derivation


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("times", [1, 3])
def test_frames_are_ordered_by_place_and_time(modality, times, tmp_path):
    ds = enhanced(modality, times=times)
    volume = io.read(save_one(ds, tmp_path / "in.dcm"))
    assert volume.modality == modality
    assert volume.shape == ((4, 10, 12) if times == 1 else (times, 4, 10, 12))
    stored = stored_values(ds) * 0.5 - 7
    for group, plane in zip(ds.PerFrameFunctionalGroupsSequence, stored, strict=True):
        place, time = group.FrameContentSequence[0].DimensionIndexValues
        assert np.array_equal(volume.slices().reshape(times, 4, 10, 12)[time - 1, place - 1], plane.astype(np.float32))
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient) * [-1, -1, 1]
        assert np.allclose((volume.affine @ [0, 0, place - 1, 1])[:3], position, atol=1e-4)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_written_as_one_derived_multi_frame(modality, tmp_path):
    volume = io.read(save_one(enhanced(modality, times=2), tmp_path / "in.dcm"))
    io.write(volume, tmp_path / "out.dcm")
    again = io.read(tmp_path / "out.dcm")
    assert np.array_equal(again.array, volume.array) and np.array_equal(again.affine, volume.affine)
    changed = volume.with_array(volume.array + 0.123)
    io.write(changed, tmp_path / "new.dcm", derivation=Derivation(model_hash="00", settings={"seed": 1}))
    assert np.abs(io.read(tmp_path / "new.dcm").array - changed.array).max() <= 0.25
    before, after = pydicom.dcmread(tmp_path / "in.dcm"), pydicom.dcmread(tmp_path / "new.dcm")
    assert after.SOPClassUID == before.SOPClassUID and after.NumberOfFrames == before.NumberOfFrames
    assert after.ImageType == ["DERIVED", "PRIMARY", "VOLUME", "FILTERED"]
    for old, new in zip(before.PerFrameFunctionalGroupsSequence, after.PerFrameFunctionalGroupsSequence, strict=True):
        assert new.PlanePositionSequence == old.PlanePositionSequence
        assert new.FrameContentSequence == old.FrameContentSequence
    source = after.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == before.SOPInstanceUID


def test_a_frame_that_lacks_its_place_is_named(tmp_path):
    ds = enhanced("CT")
    del ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    message = r"^in.dcm, frame 3: ImagePositionPatient is missing, expected one \(3 of 4 images have it\)$"
    with pytest.raises(UserError, match=message):
        io.read(save_one(ds, tmp_path / "in.dcm"))
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence = []
    (warning,) = io.read(save_one(ds, tmp_path / "none.dcm")).warnings
    assert warning == "the header gives no position in the patient (ImagePositionPatient is missing)"


def test_a_frame_that_lacks_its_rescale_is_named(tmp_path):
    ds = enhanced("CT")
    del ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence
    with pytest.raises(UserError, match=r"^in.dcm, frame 2: RescaleSlope is missing, .*3 of 4"):
        io.read(save_one(ds, tmp_path / "in.dcm"))
