"""``cdm4mi noise`` and ``cdm4mi.add_noise``: a scan in, the same scan with the noise that was asked for out."""

import json
import os

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scans_on_disk import SECRETS, dicom_series

import cdm4mi
from cdm4mi import io
from cdm4mi.data import add_noise
from cdm4mi.data.phantoms import phantom

AFFINE = np.array([[-0.7, 0.02, 0, 90], [0.02, 0.7, 0.1, -80], [0, -0.1, 3.0, 5], [0, 0, 0, 1.0]])


def ct(slices=2, side=64):
    return np.stack([phantom("CT", 60 + k, side) for k in range(slices)]).astype(np.float32)


def mr(slices=2, side=64):
    return np.stack([phantom("MR", 60 + k, side) for k in range(slices)]).astype(np.float32)


def record_of(folder, name):
    return json.loads((folder / f"{name}.cdm4mi.json").read_text())


def test_nifti_in_nifti_out(command, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii.gz", ct(), AFFINE)
    code, out, err = command("noise", source, tmp_path / "out.nii.gz", "--sigma-hu", 40, "--seed", 3)
    assert code == 0 and err.count("\n") == 1 and "does not state its modality" in err
    assert "out.nii.gz: 2 slices, gaussian noise of level 40 HU" in out
    noisy = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(noisy.affine, AFFINE, atol=1e-5)
    added = noisy.get_fdata().T - ct()
    assert added.std() == pytest.approx(40, rel=0.03)
    assert abs(added.mean()) < 2
    record = record_of(tmp_path, "out.nii.gz")
    assert record["noise"] == {"type": "gaussian", "sigma_hu": 40.0}
    assert (record["seed"], record["parameter"], record["slices"]) == (3, 40.0, 2)
    assert record["noise_level"] == pytest.approx(40)
    assert record["normalisation"] == {"low": -1000.0, "high": 1000.0, "modality": "CT"}
    assert record["input"]["shape"] == [2, 64, 64]
    assert sorted(os.listdir(tmp_path)) == ["in.nii.gz", "out.nii.gz", "out.nii.gz.cdm4mi.json"]


def test_dicom_in_dicom_out_with_no_patient_in_the_record(command, tmp_path):
    source = dicom_series(tmp_path / "in")
    code, out, err = command("noise", source, tmp_path / "out", "--sigma-hu", "20,60", "--deidentify")
    assert (code, err) == (0, "")
    clean, noisy = io.read(source), io.read(tmp_path / "out")
    np.testing.assert_allclose(noisy.affine, clean.affine)
    record = record_of(tmp_path, "out")
    added = noisy.array - clean.array
    assert 20 < record["noise_level"] < 60
    assert added.std() == pytest.approx(record["noise_level"], rel=0.03)
    written = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert "noise added" in written.SeriesDescription.lower()
    assert "Simulated gaussian noise added" in written.DerivationDescription
    text = (tmp_path / "out.cdm4mi.json").read_text() + out + " ".join(os.listdir(tmp_path / "out"))
    assert not [secret for secret in SECRETS if secret in text]


def test_one_dicom_file(command, tmp_path):
    source = next(dicom_series(tmp_path / "in", 1).iterdir())
    code, _, err = command("noise", source, tmp_path / "out.dcm", "--variance", 0.01)
    assert (code, err) == (0, "")
    added = io.read(tmp_path / "out.dcm").array - io.read(source).array
    assert added.std() == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(
    ("options", "scan"),
    [
        (["--type", "rician", "--percent", 5, "--variation", 0.3], "mr"),
        (["--type", "noncentral-chi", "--percent", "2,6", "--coils", 4], "mr"),
        (["--type", "undersampled", "--acceleration", 3], "mr"),
        (["--type", "pet", "--count-fraction", 0.2, "--counts", 50, "--modality", "PT"], "mr"),
        (["--type", "speckle", "--relative", 0.1], "mr"),
        (["--type", "salt_and_pepper", "--fraction", 0.02], "ct"),
        (["--type", "salt_and_pepper", "--fraction", 0.02, "--extremes", "pepper"], "mr"),
        (["--type", "downsampled", "--factor", 2.5], "ct"),
        (["--type", "downsampled", "--factor", 2, "--method", "kspace"], "mr"),
        (["--type", "rician + speckle", "--percent", 5, "--relative", 0.1], "mr"),
        (["--type", "rician percent=5 + gaussian percent=1"], "mr"),
        (["--type", "low_dose_ct", "--dose", 0.1, "--views", 90], "ct"),
        (["--type", "low_dose_ct", "--target-hu", 50, "--views", 90, "--geometry", "fan"], "ct"),
    ],
)
def test_every_type_from_the_command_line(command, save_nifti, tmp_path, options, scan):
    clean = {"ct": ct, "mr": mr}[scan]()
    source = save_nifti(tmp_path / "in.nii", clean)
    code, _, err = command("noise", source, tmp_path / "out.nii", *options)
    guessed = "--modality" not in options
    assert code == 0 and err.count("\n") == guessed and ("does not state its modality" in err) == guessed
    noisy = nib.load(tmp_path / "out.nii").get_fdata().T
    assert np.isfinite(noisy).all()
    rms = float(np.sqrt(((noisy - clean) ** 2).mean()))
    assert 0 < rms < 0.3 * np.ptp(clean)
    if "rician" not in options[1] and "chi" not in options[1]:  # whose level is that of bright tissue
        assert record_of(tmp_path, "out.nii")["noise_level"] == pytest.approx(rms, rel=0.05)


def test_a_file_that_appears_during_the_run_is_left_alone(command, save_nifti, tmp_path, monkeypatch):
    scan, out = (
        save_nifti(tmp_path / "in.nii", np.random.default_rng(0).normal(100, 9, (1, 16, 16))),
        tmp_path / "o.nii",
    )
    noisy_scan = add_noise.noisy_scan
    monkeypatch.setattr(add_noise, "noisy_scan", lambda *a: (out.write_bytes(b"precious"), noisy_scan(*a))[1])
    code, _, err = command("noise", scan, out)
    assert code == 2 and "o.nii: appeared during the run" in err and out.read_bytes() == b"precious"
    assert command("noise", scan, out, "--force")[0] == 0 and out.stat().st_size > 100


def test_rician_noise_in_scanner_units(command, save_nifti, tmp_path):
    clean = np.zeros((1, 256, 256), np.float32)
    clean[:, 64:192, 64:192] = 700
    source = save_nifti(tmp_path / "in.nii", clean)
    assert command("noise", source, tmp_path / "out.nii", "--type", "rician", "--percent", 5)[0] == 0
    air = nib.load(tmp_path / "out.nii").get_fdata().T[:, :64]
    sigma = 0.05 * record_of(tmp_path, "out.nii")["normalisation"]["high"]
    assert sigma == pytest.approx(35)
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)


def test_a_seed_decides_the_noise_of_each_slice_by_itself():
    volume = io.Volume(np.repeat(ct(1), 3, axis=0), np.eye(4), modality="CT")
    a, again, other = (cdm4mi.add_noise(volume, variance=0.01, seed=s).array for s in (1, 1, 2))
    np.testing.assert_array_equal(a, again)
    assert not np.array_equal(a, other)
    assert not np.array_equal(a[0], a[1])
    first = io.Volume(volume.array[:1], np.eye(4), modality="CT")
    np.testing.assert_array_equal(cdm4mi.add_noise(first, variance=0.01, seed=1).array, a[:1])


def test_from_python_a_path_a_pair_and_several_types(save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii", mr())
    noisy = cdm4mi.add_noise(source, "rician + speckle", percent=(2, 6), relative=0.1, seed=4)
    assert noisy.shape == (2, 64, 64)
    assert noisy.kind == "nifti"
    assert (noisy.array >= 0).mean() > 0.99
    with pytest.raises(cdm4mi.UserError, match="noise: found dose, which gaussian does not have"):
        cdm4mi.add_noise(source, dose=0.1)


def test_what_the_noise_leaves_alone_keeps_its_value_and_padding_stays():
    array = ct(1)
    array[0, :4] = -3024
    padding = np.zeros(array.shape, bool)
    padding[0, :4] = True
    volume = io.Volume(array, np.eye(4), modality="CT", padding=padding)
    noisy = cdm4mi.add_noise(volume, variance=0.01).array
    np.testing.assert_array_equal(noisy[0, :4], array[0, :4])
    assert (noisy[0, 4:] != array[0, 4:]).mean() > 0.99
    pepper = cdm4mi.add_noise(volume, "salt_and_pepper", fraction=0.1).array
    changed = pepper != array
    assert changed[array > -900].mean() == pytest.approx(0.1, rel=0.2)
    assert set(np.unique(pepper[changed])) == {-1000.0, 1000.0}


@pytest.fixture
def folder(tmp_path, save_nifti):
    save_nifti(tmp_path / "ct.nii.gz", ct())
    save_nifti(tmp_path / "mr.nii.gz", mr())
    save_nifti(tmp_path / "flat.nii.gz", np.zeros((1, 16, 16)))
    (tmp_path / "text.nii.gz").write_text("not a scan")
    return tmp_path


@pytest.mark.parametrize(
    ("scan", "out", "options", "message"),
    [
        (
            "ct.nii.gz",
            "out.nii.gz",
            ["--type", "rice"],
            "type: found 'rice', expected one of gaussian, coloured",
        ),
        ("ct.nii.gz", "out.nii.gz", ["--type", "identity"], "type: found 'identity', expected one of"),
        ("ct.nii.gz", "out.nii.gz", ["--type", ""], "type: found '', expected one of"),
        ("mr.nii.gz", "out.nii.gz", ["--type", "rician +"], "type: found '', expected one of"),
        ("ct.nii.gz", "out.nii.gz", ["--coils", "4"], "found coils, which gaussian does not have, expected variance"),
        ("mr.nii.gz", "out.nii.gz", ["--type", "rician", "--percent", "-1"], "percent: found -1, expected at least 0"),
        (
            "mr.nii.gz",
            "out.nii.gz",
            ["--type", "rician", "--percent", "6,2"],
            "percent: found [6.0, 2.0], expected the l",
        ),
        (
            "mr.nii.gz",
            "out.nii.gz",
            ["--type", "rician", "--percent", "few"],
            "percent: found 'few', expected a number",
        ),
        (
            "mr.nii.gz",
            "out.nii.gz",
            ["--type", "noncentral_chi", "--coils", "0"],
            "coils: found 0, expected at least 1",
        ),
        ("ct.nii.gz", "out.nii.gz", ["--variance", "0.1", "--sigma-hu", "3"], "found variance and sigma_hu, expected"),
        ("ct.nii.gz", "out.nii.gz", ["--type", "low_dose_ct", "--dose", "2"], "dose: found 2, expected at most 1"),
        ("ct.nii.gz", "out.nii.gz", ["--type", "rician"], "noise rician: found a CT scan, expected MR or PT"),
        ("mr.nii.gz", "out.nii.gz", ["--sigma-hu", "30"], "found a MR scan, expected CT; the scan does not state its"),
        ("mr.nii.gz", "out.nii.gz", ["--sigma-hu", "30"], "MR by its values (another: --modality)"),
        (
            "mr.nii.gz",
            "out.nii.gz",
            ["--type", "rician + gaussian", "--percent", "5"],
            "expected type 'rician percent=... + gaussian percent=...'",
        ),
        ("mr.nii.gz", "out.nii.gz", ["--type", "rician precent=3"], "'precent=3' after rician, expected key=value"),
        ("none.nii.gz", "out.nii.gz", [], "no such file or folder"),
        ("text.nii.gz", "out.nii.gz", [], "text.nii.gz"),
        ("flat.nii.gz", "out.nii.gz", [], "the one value 0 everywhere"),
        ("ct.nii.gz", "ct.nii.gz", [], "would overwrite its input"),
        ("ct.nii.gz", "out.dcm", [], "--like"),
        ("ct.nii.gz", "out.nii.gz", ["--series", "7"], "7"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(command, folder, scan, out, options, message):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, printed, err = command("noise", folder / scan, folder / out, *options)
    assert code == 2, (printed, err)
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert printed == ""
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
