"""``cdm4mi prepare`` as a user runs it: again, on bad scans, killed at any moment, and on named people."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import scans_on_disk
import scans_to_prepare as made
from pydicom.data import get_testdata_file


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory):
    """The store of ``scans`` by a run that nobody stopped."""
    from cdm4mi.data.prepare import prepare
    from cdm4mi.data.tasks import all_scans

    out = tmp_path_factory.mktemp("whole") / "store"
    prepare(all_scans([scans], out), out, workers=1)
    return out


def test_every_scan_of_mixed_folders_by_patient(command, scans, tmp_path):
    code, out, err = command("prepare", scans, tmp_path / "store", "--workers", 1, "--licence", "CC0, made")
    assert (code, err) == (0, "")
    manifest = made.manifest(tmp_path / "store")
    assert sorted(scan["format"] for scan in manifest["scans"]) == ["dicom"] + ["nifti"] * 6
    assert manifest["licence"] == "CC0, made"
    assert manifest["slices"] == 21
    assert len({scan["patient"] for scan in manifest["scans"]}) == 7
    assert "7 scans, 21 slices" in out
    assert "7 scan(s) prepared, 0 there already" in out


def test_the_same_command_again_does_nothing(command, scans, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()}
    code, out, err = command("prepare", scans, tmp_path / "store", "--workers", 1)
    assert (code, err) == (0, "")
    assert "nothing to do, it holds these 7 scans already" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


def test_workers_and_the_order_of_arguments_change_nothing(command, scans, whole, tmp_path):
    command("prepare", scans / "mr", scans / "dicom", tmp_path / "store", "--workers", 2)
    assert made.content(tmp_path / "store") == made.content(whole)


def test_new_scans_are_added_and_others_stay(command, scans, whole, tmp_path):
    store = shutil.copytree(whole, tmp_path / "store")
    before = {path: path.read_bytes() for path in (store / "scans").iterdir()}
    more = made.nifti(tmp_path / "more" / "sub-77.nii.gz", made.slices("MR", 77))
    code, out, err = command("prepare", more, store, "--workers", 1)
    assert (code, err) == (0, "")
    assert "1 scan(s) prepared, 7 there already (7 of them not named now: --prune takes such out)" in out
    assert before.items() <= {path: path.read_bytes() for path in (store / "scans").iterdir()}.items()
    command("prepare", scans, more, tmp_path / "at once", "--workers", 1)
    assert made.content(store) == made.content(tmp_path / "at once")


def test_prune_takes_out_what_is_not_named(command, scans, whole, tmp_path):
    store = shutil.copytree(whole, tmp_path / "store")
    more = made.nifti(tmp_path / "more" / "sub-77.nii.gz", made.slices("MR", 77))
    code, out, _ = command("prepare", scans / "mr", more, store, "--prune", "--workers", 1)
    assert code == 0
    assert "1 scan(s) prepared, 6 there already, 1 not named and removed" in out
    command("prepare", scans / "mr", more, tmp_path / "at once", "--workers", 1)
    assert made.content(store) == made.content(tmp_path / "at once")


def test_what_would_change_the_scans_that_are_there_is_refused(command, scans, whole, tmp_path):
    store = shutil.copytree(whole, tmp_path / "store")
    more = made.nifti(tmp_path / "more" / "sub-77.nii.gz", made.slices("MR", 77))
    before = made.content(store)
    code, _, err = command("prepare", more, store, "--percentiles", 1, 98)
    assert (code, "the store was prepared with [0.0, 99.5], expected the same" in err) == (2, True)
    pair = tmp_path / "pairs.csv"
    pair.write_text(f"{more},{more}\n")
    code, _, err = command("prepare", store, "--pairs", pair)
    assert (code, "found real pairs for a store of scans without" in err) == (2, True)
    assert made.content(store) == before


def test_a_cut_manifest_is_named_and_written_anew(command, scans, whole, tmp_path):
    store = shutil.copytree(whole, tmp_path / "store")
    manifest = store / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:1000])
    for arguments in (("train", store), ("inspect", store), ("check", store)):
        code, _, err = command(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert "manifest.json: is damaged; cdm4mi prepare with the same scans writes it anew" in err
    code, _, err = command("prepare", scans, store, "--workers", 1)
    assert code == 0
    assert made.content(store) == made.content(whole)


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # as a full disk
sys.argv = ["cdm4mi", *sys.argv[2:]]
from cdm4mi.cli.main import run
run()
"""


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(scans, tmp_path):
    arguments = ["prepare", scans, tmp_path / "store", "--workers", "1"]
    full = subprocess.run([sys.executable, "-c", FULL, "2000", *arguments], capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    assert full.stderr.count("\n") == 1
    assert "cannot be written (File too large), expected a disk with room for it" in full.stderr
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


STOP = """
import os, signal, sys
from cdm4mi.data import prepare_scan
from cdm4mi import files
moment, count = sys.argv[1], int(sys.argv[2])
calls = 0
def kill_at(name):
    global calls
    calls += name == moment
    if name == moment and calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
class Files:
    def __getattr__(self, name):
        return getattr(os, name)
    def replace(self, source, target):
        kill_at("before the renaming")
        os.replace(source, target)
        kill_at("after the renaming")
files.os = Files()
hashed = prepare_scan.write_scan.__globals__["slice_hash"]
def slice_hash(image):
    kill_at("in a scan")
    return hashed(image)
prepare_scan.write_scan.__globals__["slice_hash"] = slice_hash
sys.argv = ["cdm4mi", "prepare", *sys.argv[3:]]
from cdm4mi.cli.main import run
run()
"""


@pytest.mark.parametrize(
    "stops",
    [
        [("before the renaming", 8)],  # of the manifest
        [("before the renaming", 1), ("in a scan", 5), ("after the renaming", 2)],
    ],
)
def test_killed_and_started_again_is_the_store_of_one_run(stops, scans, whole, tmp_path):
    arguments = [str(scans), str(tmp_path / "store"), "--workers", "1"]
    for moment, count in stops:
        killed = subprocess.run([sys.executable, "-c", STOP, moment, str(count), *arguments], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "store" / "manifest.json").exists()
    subprocess.run([sys.executable, "-c", STOP, "never", "1", *arguments], check=True, capture_output=True)
    assert made.content(tmp_path / "store") == made.content(whole)


def test_a_damaged_file_of_the_store_is_made_anew(command, scans, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    file = sorted((tmp_path / "store" / "scans").iterdir())[0]
    file.write_bytes(file.read_bytes()[:1000])
    assert "1 scan(s) prepared, 6 there already" in command("prepare", scans, tmp_path / "store", "--workers", 1)[1]
    assert made.content(tmp_path / "store") == made.content(whole)


@pytest.fixture
def with_bad(tmp_path):
    root = tmp_path / "scans"
    for person in range(3):
        made.nifti(root / f"sub-{person:02d}.nii.gz", made.slices("MR", person))
    whole_file = (root / "sub-00.nii.gz").read_bytes()
    (root / "sub-07.nii.gz").write_bytes(whole_file[: len(whole_file) // 2])
    made.nifti(root / "sub-08.nii.gz", np.full((2, 64, 64), 5))
    (root / "sub-09.nii.gz").write_bytes(b"\x1f\x8b" + bytes(100))  # nothing but the name says what it was
    (root / "empty.dcm").write_bytes(b"")
    (root / "notes.txt").write_text("not a scan")
    (root / "half.png").write_bytes(b"\x89PN")
    return root


def test_bad_scans_are_reported_skipped_and_listed_at_the_end(command, with_bad, tmp_path):
    code, out, err = command("prepare", with_bad, tmp_path / "store", "--workers", 1)
    assert code == 0
    assert len(made.manifest(tmp_path / "store")["scans"]) == 3
    first, *lines = err.splitlines()
    assert first == "not in the store, 4:"
    assert len(lines) == 4
    assert "empty.dcm: not in a format that is known" in lines[0] and "sub-07.nii.gz: " in lines[1]
    assert "sub-08.nii.gz: scan: found the one value 5 everywhere" in lines[2]
    assert "sub-09.nii.gz: not in a format that is known" in lines[3]
    assert "passed over: 2 other files" in out


def test_strict_fails_on_a_bad_scan_and_writes_no_manifest(command, with_bad, tmp_path):
    code, _, err = command("prepare", with_bad, tmp_path / "store", "--workers", 1, "--strict")
    assert code == 1
    assert "sub-07.nii.gz" in err and "no manifest was written" in err
    assert not (tmp_path / "store" / "manifest.json").exists()
    for bad in ("sub-07.nii.gz", "sub-08.nii.gz", "sub-09.nii.gz", "empty.dcm"):
        (with_bad / bad).unlink()
    assert command("prepare", with_bad, tmp_path / "store", "--workers", 1, "--strict")[0] == 0


def test_nothing_of_a_patient_is_in_the_store(command, tmp_path):
    for person, name in enumerate(("Kowalska_Zofia", "PID-40917", "Sanatorium")):
        made.nifti(tmp_path / "scans" / name / "ACC-777_1948-02-29.nii.gz", made.slices("MR", person))
    scans_on_disk.dicom_series(tmp_path / "scans" / "Dr-Nowak")
    code, out, err = command("prepare", tmp_path / "scans", tmp_path / "store", "--workers", 1)
    assert (code, err) == (0, "")
    held = made.content(tmp_path / "store")
    assert len(held) == 5
    for secret in scans_on_disk.SECRETS:
        assert secret not in out
        for name, data in held.items():
            assert secret not in name and secret.encode() not in data, f"{secret} in {name}"


def test_what_cannot_be_is_one_line(command, scans, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for name in ("one.nii.gz", "two.nii.gz"):
        (tmp_path / "damaged" / name).write_bytes(b"none")
    cases = {
        (
            "prepare",
            tmp_path / "store",
        ): "found nothing to read, expected one of SCANS, --pairs, or --noisy with --clean",
        ("prepare", tmp_path / "nowhere", tmp_path / "store"): "nowhere: does not exist, expected a scan or a folder",
        ("prepare", tmp_path / "empty", tmp_path / "store"): "found no scan in what was given, expected DICOM,",
        ("prepare", tmp_path / "damaged", tmp_path / "store"): "one.nii.gz: not in a format that is known",
        ("prepare", scans, tmp_path / "full"): "full: holds thesis.txt, expected a new folder",
        ("prepare", scans, tmp_path / "full" / "thesis.txt"): "thesis.txt: is a file, expected a folder",
        ("prepare", scans, tmp_path / "store", "--noisy", scans): "--noisy, --clean: found one of them, expected both",
        ("prepare", scans, tmp_path / "store", "--split", tmp_path / "no.csv"): "no.csv does not exist",
        ("prepare", scans, tmp_path / "store", "--val-fraction", 0.6, "--test-fraction", 0.5): "expected a sum below 1",
        ("prepare", scans, tmp_path / "store", "--percentiles", 99, 1): "expected 0 to 100, low below high",
    }
    for arguments, message in cases.items():
        code, out, err = command(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, out, err)
        assert message in err


def test_files_that_are_not_the_stores_are_never_removed(command, scans, tmp_path):
    mine = made.nifti(tmp_path / "mine" / "scans" / "sub-01.nii.gz", made.slices("MR", 1))
    code, _, err = command("prepare", scans, tmp_path / "mine", "--workers", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds sub-01.nii.gz, expected a new folder, or a store" in err
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [mine]
    store = tmp_path / "store"
    command("prepare", scans / "dicom", store, "--workers", 1)
    for name in ("notes.txt", "scans/patches.h5"):
        (store / name).write_text("mine")
    assert command("prepare", scans / "mr", store, "--prune", "--workers", 1)[0] == 0
    assert (store / "notes.txt").exists() and (store / "scans" / "patches.h5").exists()
    assert len(list((store / "scans").iterdir())) == 7


def test_a_store_among_its_scans_is_not_read_as_one(command, tmp_path):
    made.nifti(tmp_path / "sub-01.nii.gz", made.slices("MR", 1))
    for _ in range(2):
        code, _, err = command("prepare", tmp_path, tmp_path / "store", "--workers", 1)
        assert (code, err) == (0, "")
    assert len(made.manifest(tmp_path / "store")["scans"]) == 1


def test_series_of_one_person_in_one_folder_are_scans_of_one_patient(command, tmp_path):
    for series in range(2):
        scans_on_disk.dicom_series(tmp_path / "scans" / str(series))
    for path in (tmp_path / "scans" / "1").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    shutil.copy(get_testdata_file("MR_small.dcm", download=False), tmp_path / "scans" / "1" / "mr.dcm")
    code, _, err = command("prepare", tmp_path / "scans", tmp_path / "store", "--workers", 1)
    assert (code, err) == (0, "")
    found = made.manifest(tmp_path / "store")["scans"]
    assert sorted(scan["modality"] for scan in found) == ["CT", "MR"], "the copy of the CT series is there once"
    assert len({scan["patient"] for scan in found}) == 2


def test_inspect_describes_the_store(command, whole, tmp_path):
    code, out, err = command("inspect", whole)
    assert (code, err) == (0, "")
    assert "7 scans, 21 slices" in out
    assert made.manifest(whole)["sha256"] in out
    assert command("inspect", whole / "manifest.json")[1] == out
    shutil.copytree(whole, tmp_path / "changed")
    text = (whole / "manifest.json").read_text().replace('"split": "train"', '"split": "test"', 1)
    (tmp_path / "changed" / "manifest.json").write_text(text)
    code, _, err = command("inspect", tmp_path / "changed")
    assert code == 2 and "was changed, expected it as prepare wrote it" in err


def test_one_scan_of_no_planes_does_not_keep_the_others_from_a_plan(command, tmp_path):
    made.nifti(tmp_path / "in" / "good.nii", made.slices("MR", 0))
    made.nifti(tmp_path / "in" / "plane.nii", made.slices("MR", 1)[:1].transpose(2, 0, 1), np.eye(4))  # N x M x 1
    made.nifti(tmp_path / "in" / "line.nii", made.slices("MR", 2)[:, :4, :5])
    code, out, err = command("prepare", tmp_path / "in", tmp_path / "store", "--workers", 1)
    assert code == 0
    assert "cdm4mi train" in out and "no plan" not in err
    assert "not in the store, 1:" in err
    assert "line.nii: has slices of 4 x 5 pixels, expected at least 8 x 8" in err
    assert {tuple(scan["shape"]) for scan in made.manifest(tmp_path / "store")["scans"]} == {(3, 64, 64), (1, 64, 64)}
