"""What `cdm4mi denoise` can write beside the plain result: other headers, no patient, a map."""

import json

import numpy as np
import pydicom
from scans_on_disk import SECRETS, dicom_series, dicom_slice

from cdm4mi import io


def test_a_nifti_gets_the_headers_of_a_dicom_series(command, trained_run, tmp_path):
    series = dicom_series(tmp_path / "series", sigma=30)
    volume = io.read(series)
    io.write(volume, tmp_path / "same.nii.gz")
    code, _, err = command("denoise", tmp_path / "same.nii.gz", tmp_path / "bare", "--model", trained_run)
    assert code == 2 and len(err.strip().splitlines()) == 1
    code, _, err = command(
        "denoise", tmp_path / "same.nii.gz", tmp_path / "out.nrrd", "--model", trained_run, "--modality", "CT"
    )
    assert code == 0, err
    arguments = ("--model", trained_run, "--modality", "CT", "--like", series)
    (tmp_path / "dicom").mkdir()
    code, _, err = command("denoise", tmp_path / "same.nii.gz", tmp_path / "dicom", *arguments)
    assert code == 0, err
    written, direct = io.read(tmp_path / "dicom"), io.read(tmp_path / "out.nrrd")
    assert np.allclose(written.affine, volume.affine, atol=1e-3)
    # nrrd keeps floats; DICOM's step is the source's 1 HU or finer
    assert np.abs(written.array - _on_grid(direct, written)).max() <= 0.51
    study = {pydicom.dcmread(p).StudyInstanceUID for p in [*series.iterdir(), *(tmp_path / "dicom").glob("*.dcm")]}
    assert len(study) == 1


def _on_grid(volume, like):
    from cdm4mi.io.geometry import reorient

    return reorient(volume.array, volume.affine, like.array.shape, like.affine)


def test_a_deidentified_output_and_its_map_name_nobody(command, trained_run, tmp_path):
    series = dicom_series(tmp_path / "in", sigma=30)
    out, spread = tmp_path / "out", tmp_path / "spread.dcm"
    command_line = ("denoise", series, out, "--model", trained_run, "--estimate", "mean-of-k", "--samples", 3)
    code, said, err = command(*command_line, "--steps", 3, "--uncertainty", spread, "--deidentify")
    assert code == 0, err
    for path in [*out.glob("*.dcm"), spread]:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path.name
    record = (tmp_path / "out.cdm4mi.json").read_text()
    assert not [secret for secret in SECRETS if secret in record + said + err]
    assert json.loads(record)["network_calls"] == 9
    deviation = io.read(spread)
    assert deviation.shape == (3, 64, 64)
    assert deviation.array.min() >= 0 and deviation.array.max() > 1  # HU


def test_a_map_needs_several_samples_and_draws_them(command, trained_run, tmp_path):
    scan = dicom_slice(tmp_path / "in.dcm")
    arguments = (
        "denoise",
        scan,
        tmp_path / "out.dcm",
        "--model",
        trained_run,
        "--uncertainty",
        tmp_path / "map.nii.gz",
    )
    code, _, err = command(*arguments, "--estimate", "mean")
    assert code == 2 and "mean-of-k" in err and len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.dcm"]
    code, _, err = command(*arguments, "--steps", 2, "--samples", 2)
    assert code == 0, err
    record = json.loads((tmp_path / "out.dcm.cdm4mi.json").read_text())
    assert record["settings"]["estimate"] == "mean-of-k"
    assert record["uncertainty"]["calibrated"] is False and "calibrate" in record["uncertainty"]["why"]


def test_what_could_not_be_written_is_refused_before_the_work(command, trained_run, tmp_path, monkeypatch):
    series = dicom_series(tmp_path / "in")
    places = [0, 5, 9]
    for k, place in enumerate(places):
        path = dicom_slice(tmp_path / "uneven" / f"{k}.dcm", k)
        ds = pydicom.dcmread(path)
        ds.ImagePositionPatient[2] = place
        ds.save_as(path)
    io.write(io.read(series), tmp_path / "same.nii")
    other = dicom_series(tmp_path / "other", count=2)
    monkeypatch.setattr("cdm4mi.inference.restorer.Restorer.restore", None)  # a call of it is a TypeError
    before = sorted(tmp_path.rglob("*"))
    for arguments, said in [
        ((series, tmp_path / "out.dcm"), "3 instances"),
        ((series, tmp_path / "out.png"), "one image"),
        ((series, series), "overwrite its input"),
        ((tmp_path / "uneven", tmp_path / "out.nii.gz"), "one spacing"),
        ((tmp_path / "uneven", tmp_path / "out", "--samples", 2, "--uncertainty", tmp_path / "sd.nii"), "one spacing"),
        ((tmp_path / "same.nii", tmp_path / "out", "--like", other), "template's voxels"),
        ((tmp_path / "same.nii", other, "--like", other), "overwrite its input"),
        ((series, tmp_path / "out.nii", "--samples", 2, "--uncertainty", tmp_path / "out.nii"), "place of the output"),
    ]:
        code, _, err = command("denoise", *arguments, "--model", trained_run)
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


def test_two_scans_under_one_template_are_two_images(command, trained_run, tmp_path):
    series = dicom_series(tmp_path / "series", count=1)
    volume = io.read(series)
    io.write(volume, tmp_path / "a.nii")
    io.write(volume.with_array(volume.array + 3), tmp_path / "b.nii")
    uids = []
    for number, name in enumerate(["a", "b", "a"]):
        arguments = ("--model", trained_run, "--modality", "CT", "--noise", 40, "--like", series)
        out = tmp_path / f"{number}.dcm"
        code, _, err = command("denoise", tmp_path / f"{name}.nii", out, *arguments)
        assert code == 0, err
        ds = pydicom.dcmread(out)
        uids.append((ds.SOPInstanceUID, ds.SeriesInstanceUID))
    assert uids[0] == uids[2] and not set(uids[0]) & set(uids[1])
