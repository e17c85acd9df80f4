"""The package from Python: the lines that a notebook has."""

import json
import subprocess
import sys

import numpy as np
import pytest

import cdm4mi
from cdm4mi.data.phantoms import phantom
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.records import read_record_as


@pytest.fixture
def scan(save_nifti, tmp_path):
    noisy = phantom("CT", 70, 48) + 150 * np.random.default_rng(0).standard_normal((1, 48, 48))
    return save_nifti(tmp_path / "scan.nii.gz", noisy)


def test_every_public_name_is_there():
    for name in cdm4mi.__all__:
        assert getattr(cdm4mi, name) is not None
    assert dir(cdm4mi) == sorted(cdm4mi.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'denoize'"):
        cdm4mi.denoize  # noqa: B018


def test_the_network_and_the_phantoms_do_not_wait_for_lightning():
    code = (
        "import sys, cdm4mi; cdm4mi.UNet, cdm4mi.DiffusionWrapper, cdm4mi.phantom_pairs; "
        "print([name for name in ('lightning', 'h5py', 'pydantic') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_path_a_volume_a_model_and_its_path_are_the_same(scan, trained_run, tmp_path):
    one = cdm4mi.denoise(scan, trained_run)
    two = cdm4mi.denoise(cdm4mi.read(scan), cdm4mi.load_model(trained_run))
    assert isinstance(one, cdm4mi.Restoration)
    np.testing.assert_array_equal(one.volume.array, two.volume.array)
    cdm4mi.write(one.volume, tmp_path / "restored.nii.gz")
    np.testing.assert_allclose(cdm4mi.read(tmp_path / "restored.nii.gz").array, one.volume.array, rtol=1e-5, atol=0.1)


def test_settings_are_those_of_the_command(scan, trained_run):
    model = cdm4mi.load_model(trained_run)
    record = cdm4mi.denoise(scan, model, steps=3, noise=150.0, seed=4).record
    assert record.settings["estimate"] == "sample"
    assert (record.network_calls, record.seed, record.noise_level.used) == (3, 4, pytest.approx(150.0))
    assert cdm4mi.denoise(scan, model, samples=2, steps=2).record.network_calls == 4
    for wrong in ({"steps": 0}, {"steps": 101}, {"estimate": "best"}, {"samples": -1}, {"noise": -1.0}, {"seed": -1}):
        with pytest.raises(cdm4mi.UserError, match=next(iter(wrong))):
            cdm4mi.denoise(scan, model, **wrong)


def test_from_file_to_file_with_a_record_that_reads_back(scan, trained_run, tmp_path):
    out, deviation = tmp_path / "out.nii.gz", tmp_path / "sd.nii.gz"
    record = cdm4mi.denoise_file(
        str(scan), str(out), str(trained_run), {"samples": 2, "steps": 2}, uncertainty=deviation
    )
    assert record.settings["estimate"] == "mean-of-k" and record.uncertainty.calibrated is False
    assert cdm4mi.read(deviation).shape == cdm4mi.read(out).shape
    with pytest.raises(cdm4mi.UserError, match="sampling: found step, expected one of the settings solver, steps"):
        cdm4mi.denoise_file(scan, out, trained_run, {"step": 2})
    file = tmp_path / "out.nii.gz.cdm4mi.json"
    again = read_record_as(DenoiseRecord, file.read_bytes(), file.name, "a record")
    assert again.model_copy(update={"written": None}) == record
    content = json.loads(file.read_text())
    old = {key: value for key, value in content.items() if key != "format"}  # of an earlier version
    assert read_record_as(DenoiseRecord, old, file.name, "a record") == again
    for change in ({"noise_level": 3}, {"seed": None}, {"patient": "x"}, {"format": 2}):
        with pytest.raises(
            cdm4mi.UserError, match=f"out.nii.gz.cdm4mi.json: {next(iter(change))}: .+, expected a record"
        ):
            read_record_as(DenoiseRecord, content | change, file.name, "a record")


def test_a_model_that_is_missing_and_a_scan_that_is_missing(trained_run, tmp_path):
    with pytest.raises(cdm4mi.UserError, match="no such file"):
        cdm4mi.denoise(tmp_path / "x.nii", tmp_path / "x.ckpt")
    with pytest.raises(cdm4mi.UserError, match=r"x\.nii"):
        cdm4mi.denoise(tmp_path / "x.nii", trained_run)
