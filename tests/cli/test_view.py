"""``cdm4mi view``: the page it writes, the server it starts and ends, and what it refuses."""

import re
import signal
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import pytest
from scans_on_disk import SECRETS, dicom_series

from cdm4mi import io


@pytest.fixture
def scans(tmp_path, save_nifti):
    array = np.random.default_rng(0).normal(0, 30, (4, 16, 18))
    return [save_nifti(tmp_path / f"sub-Kowalska_{n}.nii.gz", array + n) for n in range(3)]


def test_a_page_of_three_scans(command, scans, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = command("view", scans[0], scans[1], "--uncertainty", scans[2], "--out", page, "--modality", "CT")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"page: {re.escape(str(page))} \(0\.\d MB\)\n", out)
    text = page.read_text(encoding="utf-8")
    assert text.count('<script type="text/plain" data-block="') == 3
    assert '"title": "restored"' in text and "Kowalska" not in text
    assert "http://" not in text and "https://" not in text


def test_names_of_files_where_they_are_asked_for(command, scans, tmp_path):
    assert command("view", *scans, "--out", tmp_path / "page.html", "--show-names")[0] == 0
    assert '"title": "sub-Kowalska_2.nii.gz"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_no_patient_data_of_a_dicom_series(command, tmp_path):
    code, _, _ = command("view", dicom_series(tmp_path / "series"), "--out", tmp_path / "page.html")
    assert code == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not any(secret in text for secret in SECRETS)


def test_the_uncertainty_of_a_dicom_series_as_denoise_writes_it(command, tmp_path):
    series = dicom_series(tmp_path / "series")
    scan = io.read(series)
    io.write_map(scan.with_array(np.full(scan.shape, 12.5, np.float32)), tmp_path / "sd.dcm", "Standard deviation")
    io.write(scan.with_array(scan.array + 3), tmp_path / "restored")
    code, _, err = command(
        "view", series, tmp_path / "restored", "--uncertainty", tmp_path / "sd.dcm", "--out", tmp_path / "page.html"
    )
    assert (code, err) == (0, "")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"role": "uncertainty", "low": 12.5' in text and '"difference": 3.0' in text
    assert not any(secret in text for secret in SECRETS)


def test_what_is_not_shown_is_one_line(command, scans, tmp_path, save_nifti):
    other = save_nifti(tmp_path / "other.nii.gz", np.zeros((4, 16, 20)))
    code, out, err = command("view", scans[0], other, "--out", tmp_path / "page.html")
    assert (code, out) == (2, "")
    assert err == "error: other.nii.gz: has 4 x 16 x 20 voxels, expected the 4 x 16 x 18 of sub-Kowalska_0.nii.gz\n"
    assert not (tmp_path / "page.html").exists()
    (tmp_path / "page.html").write_text("mine")
    code, _, err = command("view", scans[0], "--out", tmp_path / "page.html")
    assert code == 2 and "exists" in err and "--force" in err
    assert command("view", scans[0], "--out", scans[0], "--force")[0] == 2
    assert command("view", scans[0], "--out", tmp_path / "page.html", "--force")[0] == 0


def test_the_server_ends_with_control_c(scans):
    arguments = [sys.executable, "-m", "cdm4mi", "view", str(scans[0]), "--no-browser", "--modality", "CT"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes, preexec_fn=_heed_control_c) as running:
        try:
            line = running.stdout.readline()
            address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/[\w-]+/) \(Ctrl-C ends it\)\n", line)[1]
            assert b"NOT FOR CLINICAL USE" in urlopen(address, timeout=10).read()
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=20) == 130
            assert running.stderr.read() in ("", "stopped\n")
        finally:
            running.kill()


def _heed_control_c():
    """What a shell's background jobs, and so tests that run in one, ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
