"""What `cdm4mi denoise` can write beside the plain result: all series, other headers, no patient, a map."""

import json

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scans_on_disk import SECRETS, dicom_series, dicom_slice

from cdm4mi import io
from cdm4mi.inference.restorer import Restorer


def test_every_series_of_a_folder_with_its_record(command, trained_run, tmp_path):
    dicom_series(tmp_path / "in" / "a")
    other = dicom_slice(tmp_path / "in" / "b" / "other.dcm", k=1, sigma=40)
    ds = pydicom.dcmread(other)
    ds.SeriesInstanceUID, ds.SOPInstanceUID = (generate_uid(entropy_srcs=[what]) for what in ("series", "slice"))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(other)
    code, _, err = command("denoise", tmp_path / "in", tmp_path / "one", "--model", trained_run)
    assert code == 2 and "2 scans" in err and not (tmp_path / "one").exists()
    code, _, err = command("denoise", tmp_path / "in", tmp_path / "all", "--model", trained_run, "--all-series")
    assert code == 0, err
    assert sorted(len(list(p.glob("*.dcm"))) for p in (tmp_path / "all").iterdir() if p.is_dir()) == [1, 3]
    assert len(list((tmp_path / "all").glob("*.cdm4mi.json"))) == 2


def two_series(folder):
    for n in range(2):
        path = dicom_slice(folder / str(n) / "a.dcm", k=n, sigma=40)
        ds = pydicom.dcmread(path)
        ds.SeriesInstanceUID, ds.SOPInstanceUID = (generate_uid(entropy_srcs=[what, str(n)]) for what in ("s", "i"))
        ds.SeriesNumber, ds.file_meta.MediaStorageSOPInstanceUID = n + 1, ds.SOPInstanceUID
        ds.save_as(path)
    return folder


@pytest.mark.parametrize("options", [[], ["--deidentify", "--deidentify-key"], ["--noise", "40"]])
def test_all_series_go_on_where_they_were_killed(options, command, trained_run, tmp_path, monkeypatch):
    series, out = two_series(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "key").write_bytes(b"a secret of the user")
    options = [*options, tmp_path / "key"] if "--deidentify-key" in options else options
    arguments = ("denoise", series, out, "--model", trained_run, "--all-series", *options)
    restored = []
    restore = Restorer.restore

    def until_killed(self, volume, **settings):
        restored.append(volume)
        if len(restored) == 2:
            raise KeyboardInterrupt
        return restore(self, volume, **settings)

    monkeypatch.setattr(Restorer, "restore", until_killed)
    assert command(*arguments)[0] == 130
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["series-01"]
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (out / ".cdm4mi-0-0-left").mkdir()  # of another machine's run
    code, printed, err = command(*arguments)
    assert code == 0, err
    assert len(restored) == 3 and printed.count("1 network call a slice") == 2 and printed.count(" 1 slice,") == 2
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(out.glob("*.cdm4mi.json"))) == 2
    code, _, err = command(*arguments, "--seed", 1)  # not the same outputs
    assert code == 2 and err.count("not restored") == 2 and "not an empty folder" in err
    used = json.loads(next(out.glob("*.cdm4mi.json")).read_text())["precision"]
    code, _, err = command(*arguments, "--precision", "bf16" if used == "float32" else "fp32")
    assert code == 2 and err.count("not restored") == 2
    (out / "notes.txt").write_text("of the user")
    assert command(*arguments)[0] == 2


def test_random_ids_do_not_go_on(command, trained_run, tmp_path, monkeypatch):
    arguments = ("denoise", two_series(tmp_path / "in"), tmp_path / "out", "--model", trained_run, "--all-series")
    assert command(*arguments, "--deidentify")[0] == 0
    ids = {pydicom.dcmread(path).PatientID for path in (tmp_path / "out").rglob("*.dcm")}
    assert len(ids) == 1
    code, _, err = command(*arguments, "--deidentify")
    assert code == 2 and "random patient IDs of an earlier run" in err and "--deidentify-key" in err


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
