"""--deidentify: no identity is left in a written series, and its references hold; other formats never hold it."""

from __future__ import annotations

import datetime

import numpy as np
import pydicom
import pytest
from dicom_series import enhanced, save, save_one, slices
from pydicom.dataset import Dataset

from cdm4mi import io
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.io import Derivation, write_map
from cdm4mi.io.dicom.basic_profile import ACTIONS, action
from cdm4mi.io.dicom.deidentify import LEAST_KEY

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
    how = io.Deidentification(b"a secret of the user")
    io.write(volume, tmp_path / "a", derivation=derivation, deidentify=how)
    io.write(volume, tmp_path / "b", derivation=derivation)
    originals = {ds.SOPInstanceUID for ds in volume.source.header.datasets}
    study = volume.source.header.datasets[0].StudyInstanceUID
    for path in sorted((tmp_path / "a").iterdir()):
        ds, open_one = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "b" / path.name)
        assert ds.StudyInstanceUID == how.uid(study) != study
        assert ds.SOPInstanceUID != open_one.SOPInstanceUID
        referenced = ds.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert referenced in {how.uid(uid) for uid in originals} and referenced not in originals
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
    io.Deidentification().apply(ds)
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


def patients(folder, number, **attributes):
    made = slices(3, name=str(number), series=number)
    for ds in made:
        ds.PatientID = f"ID-{number % 2}"
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return io.read(save(made, folder / f"in{number}"))


def new_id(volume, target, how=True):
    io.write(volume, target, deidentify=how)
    return {str(pydicom.dcmread(path).PatientID) for path in target.iterdir()}


def test_each_patient_has_an_id_that_only_the_secret_links(tmp_path):
    scans = [patients(tmp_path, number) for number in range(3)]  # the last is the first patient again
    keys = [io.Deidentification(secret) for secret in (b"one secret of 32", b"another of 32 by")]
    ids = [[new_id(s, tmp_path / f"{k}{n}", key) for n, s in enumerate(scans)] for k, key in enumerate(keys)]
    for first, second, again in ids:
        assert first == again != second and len(first) == 1
    assert not set.union(*ids[0]) & set.union(*ids[1])
    in_this_run = [new_id(s, tmp_path / f"run{n}") for n, s in enumerate(scans)]
    assert in_this_run[0] == in_this_run[2] != in_this_run[1] and in_this_run[0] not in (ids[0][0], ids[1][0])
    assert "secret" not in repr(keys[0])


def test_who_has_no_id_is_told_by_name(tmp_path):
    one = patients(tmp_path, 0, PatientID="", PatientName="A")
    other = patients(tmp_path, 2, PatientID="", PatientName="B")
    assert new_id(one, tmp_path / "a") != new_id(other, tmp_path / "b")


def test_a_key_is_a_file_that_nobody_guesses(command, source, tmp_path):
    (tmp_path / "key").write_bytes(b"x" * (LEAST_KEY - 1))
    arguments = ("noise", source, tmp_path / "out", "--type", "gaussian", "--variance", 0.01)
    code, _, err = command(*arguments, "--deidentify", "--deidentify-key", tmp_path / "key")
    assert code == 2 and "holds 15 bytes, expected a secret of at least 16" in err
    code, _, err = command(*arguments, "--deidentify-key", tmp_path / "key")
    assert code == 2 and err == "error: --deidentify-key: found without --deidentify, expected both\n"
    (tmp_path / "key").write_bytes(b"x" * LEAST_KEY)
    for target in ("one", "two"):
        arguments = ("noise", source, tmp_path / target, "--type", "gaussian", "--variance", 0.01)
        assert command(*arguments, "--deidentify", "--deidentify-key", tmp_path / "key")[0] == 0
    ids = {pydicom.dcmread(path).PatientID for name in ("one", "two") for path in (tmp_path / name).iterdir()}
    assert len(ids) == 1 and ids == {io.Deidentification(b"x" * LEAST_KEY).patient_id(slices()[0])}


def test_text_in_the_pixels_is_refused_or_not_claimed_to_be_gone(command, tmp_path):
    patients(tmp_path, 0, BurnedInAnnotation="YES")
    arguments = ("noise", tmp_path / "in0", tmp_path / "out", "--type", "gaussian", "--variance", 0.01, "--deidentify")
    code, _, err = command(*arguments)
    assert code == 2 and "out: BurnedInAnnotation is YES" in err and "(--keep-burned-in writes them" in err
    arguments = ("noise", tmp_path / "in0", tmp_path / "out.nii", *arguments[3:])
    assert command(*arguments)[0] == 2 and not list(tmp_path.glob("out*"))
    arguments = ("noise", tmp_path / "in0", tmp_path / "out", *arguments[3:], "--keep-burned-in")
    assert command(*arguments)[0] == 0
    for path in (tmp_path / "out").iterdir():
        ds = pydicom.dcmread(path)
        assert ds.PatientIdentityRemoved == "NO" and "DeidentificationMethodCodeSequence" not in ds
        assert "SECRET" not in str(ds) and ds.BurnedInAnnotation == "YES"


@pytest.mark.parametrize("deidentified", [False, True])
def test_the_record_holds_no_hash_of_the_identified_scan(deidentified, tiny, tmp_path):
    source = save(slices(2, rows=32, columns=32), tmp_path / "in")
    known = io.input_record(io.read(source)).sha256
    record = denoise_file(source, tmp_path / "out", tiny, noise=20.0, deidentify=deidentified)
    text = (tmp_path / "out.cdm4mi.json").read_text(encoding="utf-8")
    assert (record.input.sha256 is None) == deidentified == (known not in text)
