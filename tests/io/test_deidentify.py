"""--deidentify: no identity is left in a written series, and its references hold; other formats never hold it."""

from __future__ import annotations

import datetime

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save, save_one, slices
from pydicom.dataset import Dataset

from cdm4mi import io
from cdm4mi.io import Derivation, write_map
from cdm4mi.io.dicom.basic_profile import ACTIONS, action
from cdm4mi.io.dicom.deidentify import deidentify, new_uid

SECRETS = [b"SECRET", b"Jane", b"19500607", b"20200102"]


@pytest.fixture
def source(tmp_path):
    made = slices()
    for ds in made:
        nested = Dataset()
        nested.RequestedProcedureDescription, nested.ScheduledProcedureStepID = "for SECRET", "SECRET-STEP"
        ds.RequestAttributesSequence = [nested]
        ds.add_new((0x0009, 0x0010), "LO", "MAKER")
        ds.add_new((0x0009, 0x1001), "LO", "SECRET private")
        ds.OperatorsName, ds.PatientComments, ds.StudyDescription = "SECRET^Op", "SECRET", "SECRET study"
    return save(made, tmp_path / "in")


def test_no_identity_is_left(source, tmp_path):
    volume = io.read(source)
    io.write(volume, tmp_path / "out", deidentify=True)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret in content]
        ds = pydicom.dcmread(path)
        assert ds.PatientIdentityRemoved == "YES" and "SECRET" not in path.name
        assert datetime.date.today().strftime("%Y%m%d") not in str(ds)
    assert np.array_equal(io.read(tmp_path / "out").array, volume.array)
    write_map(volume, tmp_path / "map.dcm", "Standard deviation", deidentify=True)
    assert not [secret for secret in SECRETS if secret in (tmp_path / "map.dcm").read_bytes()]


def test_uids_are_new_and_consistent(source, tmp_path):
    volume = io.read(source)
    derivation = Derivation(model_hash="00", settings={})
    io.write(volume, tmp_path / "a", derivation=derivation, deidentify=True)
    io.write(volume, tmp_path / "b", derivation=derivation)
    originals = {ds.SOPInstanceUID for ds in volume.source.header.datasets}
    study = volume.source.header.datasets[0].StudyInstanceUID
    for path in sorted((tmp_path / "a").iterdir()):
        ds, open_one = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "b" / path.name)
        assert ds.StudyInstanceUID == new_uid(study) != study
        assert ds.SOPInstanceUID != open_one.SOPInstanceUID
        referenced = ds.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert referenced in {new_uid(uid) for uid in originals} and referenced not in originals
        assert ds.SOPClassUID == open_one.SOPClassUID


def test_enhanced_images_too(tmp_path):
    io.write(io.read(save_one(enhanced("CT"), tmp_path / "in.dcm")), tmp_path / "out.dcm", deidentify=True)
    content = (tmp_path / "out.dcm").read_bytes()
    assert not [secret for secret in SECRETS if secret in content]


def test_every_attribute_of_the_table_is_changed():
    ds = Dataset()
    for tag, letters in ACTIONS.items():
        assert letters
        if pydicom.datadict.dictionary_has_tag(tag):
            vr = pydicom.datadict.dictionary_VR(tag)
            if vr in ("LO", "SH", "PN", "LT", "ST", "UT"):
                ds.add_new(tag, vr, "secret")
    assert len(ds) > 200
    deidentify(ds)
    assert "secret" not in str(ds)
    assert action(0x00091001) == "X" and action(0x60023000) == "X" and action(0x00280010) == ""


def test_other_formats_never_hold_it(source, tmp_path):
    volume = io.read(source)
    for name in ("o.nii", "o.mha", "o.nrrd", "o.h5", "o.tif"):
        io.write(volume, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        assert not [secret for secret in SECRETS if secret in content]
    io.write_record(tmp_path / "o.nii", io.OutputRecord(warnings=[], input=io.input_record(volume)))
    assert b"SECRET" not in (tmp_path / "o.nii.cdm4mi.json").read_bytes()
