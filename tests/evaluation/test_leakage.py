"""A test patient seen in training stops a study, under the patient's name and under another one."""

import shutil

import numpy as np
import pytest

from cdm4mi.data.names import patient_hash, pseudonym
from cdm4mi.data.phantoms import phantom
from cdm4mi.data.store import slice_hash
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.config import parse_benchmark
from cdm4mi.evaluation.benchmark.run import run_benchmark
from cdm4mi.evaluation.leakage import refuse_leaks
from cdm4mi.models.about import TrainingData
from cdm4mi.models.checkpoint import load_model


def test_a_patient_of_the_training_is_refused(study, tmp_path, trained_run):
    study["data"]["paths"].append(str(trained_run.parent / "sub-00.nii.gz"))
    with pytest.raises(UserError, match=r"two steps: found test patient patient-\w+ among its (training|validation)"):
        run_benchmark(parse_benchmark(study), tmp_path / "run")
    assert not (tmp_path / "run/cache").exists()


def test_a_patient_is_known_by_name_and_by_pseudonym(study, tmp_path):
    study["methods"] = study["methods"][:1]
    scan = run_benchmark(parse_benchmark(study), tmp_path / "run").scans[0]
    person = next(name for name in scan.names if name.startswith("sub-"))
    for name in (person, pseudonym(person)):
        for key in ("patients_train", "patients_val"):
            with pytest.raises(UserError, match=scan.patient):
                refuse_leaks("model", TrainingData(**{key: [patient_hash("another"), patient_hash(name)]}), [scan])
    refuse_leaks("model", TrainingData(patients_train=[patient_hash("another")]), [scan])


def test_pixels_are_known_again_under_another_name(study, tmp_path):
    study["methods"] = study["methods"][:1]
    scan = run_benchmark(parse_benchmark(study), tmp_path / "run").scans[0]
    turned = slice_hash(np.rot90(scan.target[1])[:, ::-1])
    with pytest.raises(UserError, match=r"1 slice\(s\).*under another name"):
        refuse_leaks("model", TrainingData(slice_hashes=[turned[:8].hex()]), [scan])
    other = slice_hash(scan.target[1] + 1)
    refuse_leaks("model", TrainingData(slice_hashes=[other[:8].hex()]), [scan])


def test_the_shipped_model_says_whom_it_has_seen():
    seen = load_model(None).about.data
    assert patient_hash("sub-01") in seen.patients_train and patient_hash("sub-15") in seen.patients_val
    assert not {patient_hash(f"sub-{n}") for n in range(17, 21)} & {*seen.patients_train, *seen.patients_val}
    assert len(seen.slice_hashes) >= seen.slices_train + seen.slices_val  # of all its trainings; counts are of the last


def test_a_patient_is_not_tuned_on_and_tested_on(study, tmp_path, scans):
    shutil.copy(scans / "sub-23.nii.gz", scans / "jane.nii.gz")
    with pytest.raises(UserError, match=r"\(test\) and .* \(validation\) share"):
        run_benchmark(parse_benchmark(study), tmp_path / "run")


def test_a_training_patient_under_another_name_is_refused(study, tmp_path, trained_run, scans):
    shutil.copy(trained_run.parent / "sub-01.nii.gz", scans / "jane.nii.gz")
    with pytest.raises(UserError, match=r"3 slice\(s\) of test patient .* \(under another name\)"):
        run_benchmark(parse_benchmark(study), tmp_path / "run")


def test_blank_slices_are_nobodys(study, tmp_path, scans, save_nifti):
    """Two skull-stripped brains share their empty ends."""
    for person in (22, 23):
        slices = [phantom("CT", 50 * person + k, 64) for k in range(2)]
        save_nifti(scans / f"sub-{person}.nii.gz", np.stack([*slices, np.full_like(slices[0], -1000)]))
    study["methods"], study["levels"] = study["methods"][:2], study["levels"][:1]
    assert run_benchmark(parse_benchmark(study), tmp_path / "run").tuning
