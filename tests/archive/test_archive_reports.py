"""`cdm4mi denoise ARCHIVE OUT --report FOLDER`: a report for each scan, its verdict in the table, and `--strict`."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from scans_on_disk import SECRETS, dicom_series

from cdm4mi.trust.record import TrustReport
from cdm4mi.trust.written import PAGE, RECORD


@pytest.fixture
def source(tmp_path, save_nifti):
    """A noisy scan, one with two time points, and a DICOM series."""
    rng = np.random.default_rng(0)
    save_nifti(tmp_path / "in" / "a" / "one.nii.gz", rng.normal(0, 300, (2, 32, 32)))
    save_nifti(tmp_path / "in" / "b" / "times.nii.gz", rng.normal(0, 300, (2, 2, 32, 32)))
    dicom_series(tmp_path / "in" / "c")
    return tmp_path / "in"


@pytest.fixture
def denoise(command, trained_run, source, tmp_path):
    arguments = ("denoise", "--model", trained_run, "--noise", 300, "--modality", "CT", source, tmp_path / "out")
    return lambda *options: command(*arguments, *options)


def table(tmp_path):
    with (tmp_path / "out" / "archive.csv").open(newline="") as file:
        return {row["output"]: row for row in csv.DictReader(file)}


def reports(folder):
    found = (path.parent.relative_to(folder).as_posix() for path in folder.rglob(RECORD))
    return {name: TrustReport.model_validate_json((folder / name / RECORD).read_bytes()).verdict for name in found}


def test_each_scan_has_a_report_where_there_can_be_one(denoise, tmp_path):
    code, out, err = denoise("--report", tmp_path / "reports")
    assert code == 0, err
    rows, made = table(tmp_path), reports(tmp_path / "reports")
    assert set(made) == {"a/one.nii.gz", "c"}
    assert {name: row["verdict"] for name, row in rows.items()} == made | {"b/times.nii.gz": ""}
    assert "no report: " in rows["b/times.nii.gz"]["message"] and rows["b/times.nii.gz"]["status"] == "restored"
    assert all((tmp_path / "reports" / name / PAGE).is_file() for name in made)
    assert f"; reports in {tmp_path / 'reports'}" in out
    assert not [secret for secret in SECRETS if secret in out + err + str(rows)]


def test_reports_that_cannot_be_written_are_refused_before_the_work(denoise, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = denoise("--report", tmp_path / "file")
    assert code == 2 and "file/trust.json: cannot be written" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scans_of_an_earlier_run_get_theirs_and_keep_them(denoise, tmp_path):
    assert denoise()[0] == 0
    assert not any(row["verdict"] for row in table(tmp_path).values())
    restored = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert denoise("--report", tmp_path / "reports")[0] == 0
    assert restored == {path: path.stat().st_mtime_ns for path in restored}
    made = reports(tmp_path / "reports")
    assert set(made) == {"a/one.nii.gz", "c"}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "reports").rglob(RECORD)}
    code, out, _ = denoise("--report", tmp_path / "reports")
    assert code == 0 and "0 scans restored, 3 there already" in out
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert {name: row["verdict"] for name, row in table(tmp_path).items() if row["verdict"]} == made


def test_strict_refuses_a_scan_that_the_model_was_not_trained_for(denoise, tmp_path):
    code, _, err = denoise("--strict")
    rows = table(tmp_path)
    assert code == 1 and "as --strict asks" in err
    assert {name: row["status"] for name, row in rows.items()} == {
        "a/one.nii.gz": "restored",
        "b/times.nii.gz": "restored",
        "c": "failed",
    }
    assert not (tmp_path / "out" / "c").exists()


def test_strict_ends_in_3_where_a_verdict_is_bad(denoise, source, tmp_path):
    shutil.rmtree(source / "c")
    code, out, _ = denoise("--strict", "--noise", 3000)  # ten times what is there: the scan itself is taken away
    assert (code, table(tmp_path)["a/one.nii.gz"]["verdict"]) == (3, "bad")
    assert "verdicts: 1 bad (not for clinical use)" in out
