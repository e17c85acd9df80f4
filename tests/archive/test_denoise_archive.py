"""`cdm4mi denoise ARCHIVE OUT` as a user meets it: the tree is kept, the same command goes on, a failure is a line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scans_on_disk import SECRETS, dicom_series, dicom_slice, two_series

from cdm4mi import io
from cdm4mi.inference.restorer import Restorer


@pytest.fixture
def noisy(save_nifti):
    """Writes a small noisy scan at a path."""
    rng = np.random.default_rng(0)
    return lambda path, shape=(1, 16, 16): save_nifti(path, rng.normal(0, 300, shape))


@pytest.fixture
def denoise(command, trained_run):
    return lambda *arguments: command("denoise", "--model", trained_run, "--noise", 300, *arguments)


def files(folder):
    """Every output in a folder but records and tables."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith((".cdm4mi.json", ".csv")))


def lines(out, table="archive.csv"):
    with (out / table).open(newline="") as file:
        return list(csv.DictReader(file))


def test_names_and_tree_are_kept(denoise, noisy, tmp_path):
    source = tmp_path / "in"
    noisy(source / "x.nii.gz")
    noisy(source / "a" / "b" / "x.nii.gz")
    dicom_series(source / "a" / "one")
    two_series(source / "a" / "mixed", "", "")
    dicom_slice(source / "a" / "parent" / "1.dcm")
    noisy(source / "a" / "parent" / "child" / "y.nii")
    (source / "a" / "readme.txt").write_text("hello")
    (source / "a" / "cut.nii").write_bytes(b"nothing")
    code, out, err = denoise(source, tmp_path / "out", "--modality", "CT")
    assert code == 1
    assert err.splitlines()[-1] == "error: 1 scan of 8 could not be restored"
    assert f"not restored: {source}/a/cut.nii: not in a format that is known" in err
    assert "7 scans restored; table " in out and "no scans: 1 other files" in out
    assert files(tmp_path / "out") == [
        "a/b/x.nii.gz",
        "a/mixed/series-001/0001.dcm",
        "a/mixed/series-002/0001.dcm",
        *(f"a/one/000{n}.dcm" for n in (1, 2, 3)),
        "a/parent/child/y.nii",
        "a/parent/series-001/0001.dcm",
        "x.nii.gz",
    ]
    for line in lines(tmp_path / "out"):
        assert (line["status"] == "failed") == (line["output"] == "")
        if line["output"]:
            before = io.read(line["input"], None if "mixed" not in line["output"] else int(line["output"][-1]))
            after = io.read(tmp_path / "out" / line["output"])
            assert before.array.shape == after.array.shape and not np.allclose(before.array, after.array)
            assert line["slices"] == str(len(after.slices())) and line["sigma"] == "300" and line["unit"] == "HU"
    written = (tmp_path / "out" / "archive.csv").read_text() + " ".join(files(tmp_path / "out")) + out + err
    assert not [secret for secret in SECRETS if secret in written]


@pytest.mark.parametrize("bids", [False, True])
def test_what_cannot_be_read_is_a_line_and_the_others_go_on(bids, denoise, noisy, tmp_path, monkeypatch):
    names = [f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(4)]
    for name in names:
        noisy(tmp_path / "in" / name)
    dicom_series(tmp_path / "in/sub-0/bare", 1).joinpath("0.dcm").rename(tmp_path / "in/sub-0/bare/0")
    (tmp_path / "in/sub-0/bare/closed").write_bytes(b"a slice, by its folder")
    if bids:
        (tmp_path / "in/dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    closed = {str(tmp_path / "in" / name) for name in (names[1], "sub-2/anat", "sub-3", "sub-0/bare/closed")}
    scandir, opened = os.scandir, Path.open

    def guarded(function):
        def call(path=".", *arguments, **options):
            if str(path) in closed:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return call

    monkeypatch.setattr(os, "scandir", guarded(scandir))
    monkeypatch.setattr(Path, "open", guarded(opened))
    code, printed, err = denoise(tmp_path / "in", tmp_path / "out", "--modality", "CT")
    failed = {line["input"]: line["message"] for line in lines(tmp_path / "out") if line["status"] == "failed"}
    of_series = {str(tmp_path / "in/sub-0/bare/closed"): "cannot be read (empty, damaged or something else)"}
    assert code == 1 and f"{1 if bids else 2} scan" in printed, err
    assert failed == {
        str(tmp_path / "in" / names[1]): "cannot be read (Permission denied)",
        str(tmp_path / "in/sub-2/anat"): "cannot be listed (Permission denied)",
        str(tmp_path / "in/sub-3"): "cannot be listed (Permission denied)",
        **({} if bids else of_series),
    }


def test_a_series_in_several_folders_is_one_scan(denoise, tmp_path):
    for k in range(2):
        dicom_slice(tmp_path / "in" / f"{k}" / "a.dcm", k)
    assert denoise(tmp_path / "in", tmp_path / "out")[0] == 0
    assert files(tmp_path / "out") == ["0001.dcm", "0002.dcm"]


@pytest.mark.parametrize("options", [[], ["--deidentify", "--deidentify-key", "KEY"]])
def test_the_same_command_goes_on(options, denoise, tmp_path, monkeypatch):
    source, out = two_series(tmp_path / "in"), tmp_path / "out"
    (tmp_path / "KEY").write_bytes(b"a secret of the user")
    arguments = [source, out, *(str(tmp_path / "KEY") if option == "KEY" else option for option in options)]
    restored = []
    restore = Restorer.restore

    def until_killed(self, volume, **settings):
        restored.append(volume)
        if len(restored) == 2:
            raise KeyboardInterrupt
        return restore(self, volume, **settings)

    monkeypatch.setattr(Restorer, "restore", until_killed)
    assert denoise(*arguments)[0] == 130
    assert files(out) == ["0/0001.dcm"] and [line["status"] for line in lines(out)] == ["restored"]
    first = {path: path.stat().st_mtime_ns for path in (out / "0").iterdir()}
    code, printed, err = denoise(*arguments)
    assert code == 0, err
    assert len(restored) == 3 and "1 scan restored, 1 there already" in printed
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert [(line["output"], line["status"]) for line in lines(out)] == [("0", "kept"), ("1", "restored")]
    used = json.loads((out / "0.cdm4mi.json").read_text())["precision"]
    for other in (("--seed", 1), ("--precision", "bf16" if used == "float32" else "fp32")):
        code, _, err = denoise(*arguments, *other)  # not the same outputs
        assert code == 1 and err.count("not restored") == 2 and "not an empty folder" in err
    assert len({pydicom.dcmread(path).PatientID for path in out.rglob("*.dcm")}) == 1


def test_other_settings_leave_the_outputs_and_their_lines(denoise, noisy, tmp_path):
    for name in ("a.nii", "b.nii"):
        noisy(tmp_path / "in" / name)
    arguments = (tmp_path / "in", tmp_path / "out", "--modality", "CT")
    assert denoise(*arguments)[0] == 0
    before = lines(tmp_path / "out")
    (tmp_path / "out/b.nii").unlink()
    (tmp_path / "out/b.nii.cdm4mi.json").unlink()
    code, printed, err = denoise(*arguments, "--seed", 3)
    assert code == 1 and "a.nii: exists" in err and "1 scan restored" in printed
    after = lines(tmp_path / "out")
    assert after[0] == before[0] and after[1]["status"] == "restored"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_bids_dataset_of_a_damaged_description_is_no_plain_tree(text, denoise, noisy, tmp_path):
    noisy(tmp_path / "in/sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "in/dataset_description.json").write_text(text)
    code, _, err = denoise(tmp_path / "in", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "dataset_description.json: found no readable JSON object with a BIDSVersion" in err


def test_parts_are_disjoint_and_together_the_whole(denoise, noisy, tmp_path):
    for k in range(7):
        noisy(tmp_path / "in" / str(k % 3) / f"{k}.nii")
    out, parts = tmp_path / "out", []
    for n in (1, 2, 3):
        assert denoise(tmp_path / "in", out, "--shard", f"{n}/3", "--modality", "CT")[0] == 0
        parts += [line["output"] for line in lines(out, f"archive-{n}-of-3.csv")]
    assert len(parts) == len(set(parts)) == 7 and sorted(parts) == files(out)


def test_paths_of_a_pattern_and_of_a_csv(denoise, noisy, tmp_path):
    for k in range(3):
        noisy(tmp_path / "in" / str(k) / "t1.nii.gz")
        noisy(tmp_path / "in" / str(k) / "other.nii.gz")
    dicom_series(tmp_path / "in" / "ct")
    assert denoise(tmp_path / "in" / "*" / "t1.nii.gz", tmp_path / "by_pattern", "--modality", "CT")[0] == 0
    assert files(tmp_path / "by_pattern") == [f"{k}/t1.nii.gz" for k in range(3)]
    assert denoise(tmp_path / "in" / "*" / "*.dcm", tmp_path / "slices")[0] == 0  # the files of one series
    assert files(tmp_path / "slices") == [f"ct/000{n}.dcm" for n in (1, 2, 3)]
    named = tmp_path / "scans.csv"
    named.write_text(f"number,path\n1,in/2/t1.nii.gz\n2,{tmp_path}/in/ct\n3,in/none.nii\n1,in/2/t1.nii.gz\n")
    code, _, err = denoise(named, tmp_path / "by_csv", "--modality", "CT")
    assert code == 1 and "in/none.nii: does not exist" in err
    assert files(tmp_path / "by_csv") == ["in/2/t1.nii.gz", *(f"in/ct/000{n}.dcm" for n in (1, 2, 3))]


@pytest.mark.parametrize(
    "source, out, options, message",
    [
        ("none", "out", [], "none: no such file or folder"),
        ("none/*.nii", "out", [], "no scan has such a path"),
        ("empty", "out", [], "empty: holds no scan (no files)"),
        ("empty", "out", ["--workers", "1"], "empty: holds no scan (no files)"),
        ("scans", "scans", [], "scans: lies among the scans that are to be read"),
        ("scans", "scans/restored", [], "restored: lies among the scans that are to be read"),
        ("scans/*.nii", "scans", [], "scans: lies among the scans that are to be read"),
        ("scans", "other", [], "other: holds thesis.txt and no table of restored scans"),
        ("scans", "other/thesis.txt", [], "thesis.txt: is a file"),
        ("scans", "out.nii", [], "holds 2 scans, expected the number of one (--series)"),
        ("scans", "out", ["--uncertainty", "sd.nii"], "--uncertainty: found given for 2 scans"),
        ("scans", "out", ["--like", "scans/1.nii"], "--like: found given for 2 scans"),
        ("scans/1.nii", "out.nii", ["--shard", "1/2"], "--shard: found given for one scan, scans/1.nii, expected many"),
        ("scans/1.nii", "out", ["--workers", "2"], "--workers: found given for one scan, scans/1.nii, expected many"),
        ("scans", "out.nii", ["--shard", "1/2"], "out.nii: is named as one file, expected a folder"),
        ("scans/*.nii", "out.nii", [], "out.nii: is named as one file, expected a folder"),
        ("scans", "out", ["--shard", "9/8"], "--shard: found 9/8, expected i/n with i from 1 to n"),
        ("scans", "out", ["--shard", "all"], "--shard: found all, expected i/n with i from 1 to n"),
        (
            "scans",
            "out",
            ["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"],
            "--scheduler: found given with --workers",
        ),
        ("scans", "out", ["--deidentify"], "--deidentify: found random patient IDs for an archive"),
        ("scans", "out", ["--model", "none.ckpt"], "none.ckpt: no such file"),
        ("scans", "out", ["--steps", "0"], "steps: found 0"),
        ("other.csv", "out", [], "has the columns name, age, expected one named path"),
        ("empty.csv", "out", [], "names no path, expected some in its column path"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    denoise, noisy, tmp_path, monkeypatch, source, out, options, message
):
    monkeypatch.chdir(tmp_path)
    for name in ("1.nii", "2.nii"):
        noisy(tmp_path / "scans" / name)
    for folder in ("empty", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    (tmp_path / "other.csv").write_text("name,age\nKowalska,77\n")
    (tmp_path / "empty.csv").write_text("path\n\n")
    before = sorted(tmp_path.rglob("*"))
    code, printed, err = denoise(source, out, *options)
    *warnings, error = err.splitlines()
    assert (code, printed) == (2, "") and error.startswith("error: ") and message in error, err
    assert all("names of files and folders are kept" in warning for warning in warnings)
    assert sorted(tmp_path.rglob("*")) == before


def bids_errors(dataset, cache):
    """What bids-validator calls an error in a dataset: codes and places."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [validator, dataset, "--format", "json"],
        env=os.environ | {"DENO_DIR": str(cache / "deno")},
        capture_output=True,
        text=True,
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [(issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error"]


def test_a_bids_dataset_becomes_a_derivative(denoise, noisy, tmp_path):
    pytest.importorskip("bids_validator_deno")
    raw = tmp_path / "raw"
    images = [
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_acq-x_run-1_FLAIR.nii",
        "sub-02/ses-a/func/sub-02_ses-a_task-rest_bold.nii.gz",
        "sub-02/ses-a/dwi/sub-02_ses-a_dwi.nii.gz",
    ]
    passed = [
        "sub-01/anat/sub-01_T1map.nii.gz",
        "sub-01/anat/sub-01_part-phase_T2w.nii",
        "sub-01/fmap/sub-01_phasediff.nii.gz",
    ]
    for name in (*images, *passed, "derivatives/other/sub-01/anat/sub-01_desc-x_T1w.nii.gz"):
        noisy(raw / name, (2, 2, 16, 16) if name.endswith(("bold.nii.gz", "dwi.nii.gz")) else (1, 16, 16))
    described = {"Name": "Brains", "BIDSVersion": "1.8.0", "License": "CC0"}
    (raw / "dataset_description.json").write_text(json.dumps(described))
    (raw / "T1w.json").write_text(json.dumps({"RepetitionTime": 2.3, "EchoTime": 1.0, "SkullStripped": False}))
    own = {"EchoTime": 0.003, "ImageType": ["ORIGINAL", "PRIMARY"], "InstitutionName": "Sanatorium"}
    (raw / "sub-01/anat/sub-01_T1w.json").write_text(json.dumps(own))
    (raw / "sub-02/ses-a/dwi/sub-02_ses-a_dwi.bval").write_text("0 1000\n")
    (raw / "dwi.bvec").write_text("0 1\n0 0\n0 0\n")
    (raw / "task-rest_bold.json").write_text(json.dumps({"TaskName": "rest", "RepetitionTime": 1.0}))
    out = raw / "derivatives" / "cdm4mi"
    code, printed, err = denoise(raw, out)
    assert code == 0, err
    assert "4 scans restored, 3 passed over" in printed
    restored = [name.rpartition("_")[0] + "_desc-denoised_" + name.rpartition("_")[2] for name in images]
    sidecars = [name.partition(".nii")[0] + ".json" for name in restored]
    gradients = [sidecars[3].replace(".json", end) for end in (".bval", ".bvec")]
    assert files(out) == sorted([*restored, *sidecars, *gradients, ".bidsignore", "README", "dataset_description.json"])
    assert bids_errors(out, tmp_path) == []
    assert json.loads((out / sidecars[0]).read_text()) == {
        "RepetitionTime": 2.3,
        "EchoTime": 0.003,
        "SkullStripped": False,
        "ImageType": ["DERIVED", "PRIMARY"],
        "InstitutionName": "Sanatorium",
        "Description": "Noise taken away by a diffusion model; the record beside it says which, and how",
        "Sources": ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"],
    }
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "cdm4mi"
    assert (out / description["DatasetLinks"]["raw"]).resolve() == raw.resolve()
    assert {line["input"]: line["message"] for line in lines(out) if line["status"] == "passed"}.keys() == {
        str(raw / name) for name in passed
    }
    assert io.read(out / restored[2]).array.shape == (2, 2, 16, 16)
    shutil.rmtree(out)
    (tmp_path / "key").write_bytes(b"a secret of the user")
    code, _, err = denoise(raw, tmp_path / "out", "--deidentify", "--deidentify-key", tmp_path / "key")
    assert code == 0, err
    assert "Sanatorium" not in (tmp_path / "out" / sidecars[0]).read_text()
