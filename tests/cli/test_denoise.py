"""``cdm4mi denoise`` as a user meets it: the same kind of scan out; a mistake is one line and leaves nothing behind."""

import json
import os
import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scans_on_disk import SECRETS, dicom_series, dicom_slice

from cdm4mi import io
from cdm4mi.data.phantoms import phantom


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def noisy_ct(slices=2, side=48, sigma=150.0):
    clean = np.stack([phantom("CT", 60 + k, side) for k in range(slices)])
    return clean, clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)


def record_of(folder, name):
    return json.loads((folder / f"{name}.cdm4mi.json").read_text())


def test_nifti_in_nifti_out(command, trained_run, save_nifti, tmp_path):
    clean, noisy = noisy_ct()
    affine = np.array([[-0.7, 0.02, 0, 90], [0.02, 0.7, 0.1, -80], [0, -0.1, 3.0, 5], [0, 0, 0, 1.0]])
    source = save_nifti(tmp_path / "in.nii.gz", noisy, affine)
    code, out, err = command("denoise", source, tmp_path / "out.nii.gz", "--model", trained_run)
    assert (code, err) == (
        0,
        "warning: the scan does not state its modality: CT by its values (another: --modality)\n",
    )
    assert "out.nii.gz: 2 slices, 1 network call a slice (mean), " in out
    assert re.search(
        r"noise measured: sigma 1\d\d(\.\d)? HU, correlation of neighbours -?0\.\d\d \(rows\), -?0\.\d\d \(columns\)$",
        out.strip(),
    )
    restored = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(restored.affine, affine, atol=1e-5)
    image = restored.get_fdata().T
    assert image.shape == clean.shape
    assert np.abs(image - clean).mean() < 0.75 * np.abs(noisy - clean).mean()
    record = record_of(tmp_path, "out.nii.gz")
    assert record["input"]["modality"] is None
    assert record["normalisation"] == {"low": -1000.0, "high": 1000.0, "modality": "CT"}
    assert record["noise_level"]["value"] == pytest.approx(150, rel=0.2)
    assert record["noise_level"]["correlations"] == pytest.approx([0, 0], abs=0.2)
    assert (record["noise_level"]["magnitude"], record["noise_level"]["varying"]) == (False, False)
    assert record["weight_hash"]
    assert sorted(os.listdir(tmp_path)) == ["in.nii.gz", "out.nii.gz", "out.nii.gz.cdm4mi.json"]


def test_what_was_found_of_the_noise_is_printed(command, trained_run, save_nifti, tmp_path):
    rng = np.random.default_rng(0)
    clean = np.pad(phantom("MR", 1, 64), 32)
    magnitude = np.hypot(clean + 60 * rng.standard_normal(clean.shape), 60 * rng.standard_normal(clean.shape))
    source = save_nifti(tmp_path / "in.nii", magnitude[None])
    arguments = ("denoise", source, tmp_path / "out.nii", "--model", trained_run, "--modality", "MR", "--force")
    _, measured, _ = command(*arguments)
    assert " scanner units, correlation of neighbours " in measured
    assert measured.strip().endswith("(columns), MR magnitude")
    _, given, _ = command(*arguments, "--noise", 60)
    assert given.strip().endswith("noise given: sigma 60 scanner units")
    shipped = ("denoise", source, tmp_path / "out.nii", "--modality", "MR", "--force", "--noise", 60)
    _, given, _ = command(*shipped)  # a model that is told the texture, which is measured in any case
    assert given.strip().endswith("noise given: sigma 60 scanner units")


def test_slices_of_unequal_noise_are_printed(command, trained_run, save_nifti, tmp_path):
    _, noisy = noisy_ct(2, 96, np.array([100.0, 250.0])[:, None, None])
    source = save_nifti(tmp_path / "in.nii", noisy)
    _, out, _ = command("denoise", source, tmp_path / "out.nii", "--model", trained_run, "--modality", "CT")
    noise = record_of(tmp_path, "out.nii")["noise_level"]
    assert (noise["least"], noise["most"]) == pytest.approx((100, 250), rel=0.15)
    span = f"({noise['least']:.4g} to {noise['most']:.4g} HU by slice)"
    assert f"sigma {noise['value']:.4g} HU {span}, correlation of neighbours" in out


def test_options_reach_the_model_and_the_record(command, trained_run, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii", noisy_ct(1, 32)[1])

    def settings(*options):
        code, _, err = command("denoise", source, tmp_path / "out.nii", "--model", trained_run, "--force", *options)
        assert code == 0, err
        record = record_of(tmp_path, "out.nii")
        return record["settings"], record

    chosen, record = settings("--steps", 3, "--seed", 9, "--noise", 150)
    assert (chosen["estimate"], chosen["steps"], record["seed"], record["network_calls"]) == ("sample", 3, 9, 3)
    assert record["noise_level"] == {"value": 150.0, "estimated": False, "used": 150.0}
    chosen, record = settings("--samples", 2, "--steps", 3, "--solver", "ddpm")
    assert (chosen["estimate"], chosen["solver"], record["network_calls"]) == ("mean-of-k", "ddpm", 6)
    chosen, record = settings("--solver", "heun", "--spacing", "karras", "--start-level", 0.8, "--steps", 3)
    assert (chosen["estimate"], chosen["spacing"], chosen["start_from"]) == ("sample", "karras", "y")
    assert (chosen["start_level"], record["network_calls"]) == (0.8, 5)
    assert settings("--start-from", "y", "--steps", 2)[1]["network_calls"] == 2
    chosen, _ = settings("--eta", 0.5, "--tile", 16)
    assert (chosen["estimate"], chosen["eta"], chosen["tile"]) == ("sample", 0.5, 16)
    _, record = settings("--modality", "MR")
    assert record["normalisation"]["modality"] == "MR"


def test_time_series_keeps_its_four_axes(command, trained_run, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii.gz", noisy_ct(4, 36)[1].reshape(2, 2, 36, 36))
    code, out, _ = command("denoise", source, tmp_path / "out.nii.gz", "--model", trained_run)
    assert code == 0
    assert "4 slices" in out
    before, after = io.read(source), io.read(tmp_path / "out.nii.gz")
    assert after.array.shape == before.array.shape == (2, 2, 36, 36)
    assert not np.allclose(after.array, before.array)
    np.testing.assert_array_equal(after.affine, before.affine)


def test_dicom_file_in_dicom_file_out(command, trained_run, tmp_path):
    source = dicom_slice(tmp_path / "in.dcm", sigma=120)
    assert command("denoise", source, tmp_path / "out.dcm", "--model", trained_run)[0] == 0
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "out.dcm")
    assert after.PatientName == before.PatientName
    assert after.ImagePositionPatient == before.ImagePositionPatient
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.ImageType[0] == "DERIVED"
    a, b = io.read(source), io.read(tmp_path / "out.dcm")
    assert b.array.shape == a.array.shape
    assert 20 < np.abs(a.array - b.array).mean() < 300


def test_series_folder_in_folder_out(command, trained_run, tmp_path):
    source = dicom_series(tmp_path / "in", 3, sigma=120)
    before = tree(source)
    code, out, _ = command("denoise", source, tmp_path / "out", "--model", trained_run)
    assert code == 0
    assert "3 slices" in out
    a, b = io.read(source), io.read(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 3
    np.testing.assert_allclose(b.affine, a.affine)
    # each slice is the restoration of the slice at its place
    likeness = [[np.corrcoef(x.ravel(), y.ravel())[0, 1] for y in b.array] for x in a.array]
    assert np.argmax(likeness, axis=1).tolist() == [0, 1, 2]
    assert tree(source) == before


def test_no_patient_data_in_record_messages_or_names(command, trained_run, tmp_path):
    source = dicom_series(tmp_path / "Kowalska_Zofia-PID-40917" / "in", 2, sigma=120)
    results = tmp_path / "results"
    results.mkdir()
    said = ""
    for arguments in (
        [results / "series", "--model", trained_run, "--noise", "2000"],
        [results / "scan.nii.gz", "--model", trained_run],
    ):
        code, out, err = command("-v", "denoise", source, *arguments)
        assert code == 0, err
        assert "warning: noise level" in err or "scan" in out
        said += out + err
    said += "".join(p.read_text() for p in results.rglob("*.json"))
    said += " ".join(str(p.relative_to(results)) for p in results.rglob("*"))
    said += str(command("inspect", source)[1:])
    assert len(list(results.rglob("*.json"))) == 2
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.fixture
def place(tmp_path, save_nifti):
    """A folder with a good scan, a broken one and a file that is no model."""
    save_nifti(tmp_path / "in.nii.gz", noisy_ct(1, 32)[1])
    broken = noisy_ct(1, 32)[1]
    broken[0, 3, 3] = np.inf
    save_nifti(tmp_path / "inf.nii.gz", broken)
    save_nifti(tmp_path / "row.nii.gz", np.zeros((2, 1, 40)))
    save_nifti(tmp_path / "flat.nii.gz", np.zeros((1, 32, 32)))
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / "model.ckpt").write_text("not a model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.dcm").write_text("the result of yesterday")
    return tmp_path


@pytest.mark.parametrize(
    "scan, out, options, said",
    [
        ("none.nii.gz", "out.nii.gz", [], "none.nii.gz: no such file or folder"),
        ("notes.txt", "out.nii.gz", [], "not in a format that is known"),
        ("in.nii.gz", "in.nii.gz", [], "would overwrite its input"),
        ("in.nii.gz", "out.xyz", [], "names no format"),
        ("in.nii.gz", "out.dcm", [], "a DICOM output needs"),
        ("in.nii.gz", "full", [], "full: "),
        ("in.nii.gz", "notes.txt/out.nii.gz", [], "notes.txt"),
        ("in.nii.gz", "out.nii.gz", ["--model", "none.ckpt"], "none.ckpt: no such file"),
        ("in.nii.gz", "out.nii.gz", ["--model", "model.ckpt"], "model.ckpt: not a checkpoint"),
        ("in.nii.gz", "out.nii.gz", ["--model", "in.nii.gz"], "in.nii.gz: not a"),
        ("in.nii.gz", "out.nii.gz", ["--config", "none.yaml"], "none.yaml: no such file"),
        ("in.nii.gz", "out.nii.gz", ["--steps", "0"], "error: --steps: found 0"),
        ("in.nii.gz", "out.nii.gz", ["--keep-low-frequencies", "1"], "error: --keep-low-frequencies: found 1.0"),
        ("in.nii.gz", "out.nii.gz", ["--steps", "101"], "error: --steps: found 101, expected 1 to 100"),
        (
            "in.nii.gz",
            "out.nii.gz",
            ["--eta", "0.5", "--solver", "heun"],
            "error: --eta: found 0.5 for the solver heun, expected solver ddim",
        ),
        ("in.nii.gz", "out.nii.gz", ["--planes", "2"], "error: --planes: found 2, expected 'auto', 1 or 3"),
        ("in.nii.gz", "out.nii.gz", ["--planes", "3"], "error: --planes: found 3 for a scan of "),
        ("in.nii.gz", "out.nii.gz", ["--eta", "2"], "eta: found 2"),
        ("in.nii.gz", "out.nii.gz", ["--samples", "0"], "samples: found 0"),
        ("in.nii.gz", "out.nii.gz", ["--tile", "1"], "error: --tile: found 1, expected at least 4"),
        ("in.nii.gz", "out.nii.gz", ["--noise", "-1"], "error: --noise: found -1"),
        ("in.nii.gz", "out.nii.gz", ["--noise", "nan"], "error: --noise: found nan"),
        ("in.nii.gz", "out.nii.gz", ["--series", "7"], "7"),
        ("in.nii.gz", "out.nii.gz", ["--memory", "much"], "error: --memory: found 'much', expected a size such as 2G"),
        ("inf.nii.gz", "out.nii.gz", [], "1 voxel(s) are infinite"),
        (
            "row.nii.gz",
            "out.nii.gz",
            ["--modality", "CT"],
            "row.nii.gz: found slices of 2 x 40 pixels, expected at",
        ),
        ("flat.nii.gz", "out.nii.gz", [], "flat.nii.gz: found the one value 0 everywhere"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(command, trained_run, place, scan, out, options, said):
    before = tree(place)
    options = [str(place / o) if o.endswith((".ckpt", ".yaml", ".gz")) else o for o in options]
    if "--model" not in options:
        options += ["--model", trained_run]
    code, printed, err = command("denoise", place / scan, place / out, *options)
    assert code == 2, (printed, err)
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert printed == ""
    assert tree(place) == before


def test_output_folder_that_is_not_empty_is_left_alone(command, trained_run, place):
    source = dicom_series(place / "series", 1)
    before = tree(place)
    for out, said in (("full", "is not an empty folder"), ("series", "would overwrite its input")):
        code, _, err = command("denoise", source, place / out, "--model", trained_run)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1
    assert tree(place) == before


@pytest.mark.parametrize(
    "scan, out, said",
    [
        *(
            (scan, out, "names no file and no folder of its own")
            for scan in ("in.nii", "series")
            for out in (".", "/", "")
        ),
        ("in.nii", "dir.nii", "dir.nii: is a folder, expected the name of a file to write"),
        ("series", "dir.dcm", "dir.dcm: is a folder, expected the name of a file to write"),
        ("series", "notes", "notes: exists and is not an empty folder"),
        ("series", "notes/deeper", "notes/deeper: cannot be written, as "),
    ],
)
def test_a_place_that_no_output_can_take_is_refused_before_the_work(
    command, trained_run, save_nifti, tmp_path, monkeypatch, scan, out, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cdm4mi.inference.restorer.Restorer.restore", None)  # a call of it is a TypeError
    monkeypatch.setattr("cdm4mi.data.add_noise.noisy_scan", None)
    save_nifti(tmp_path / "in.nii", noisy_ct(1, 32)[1])
    dicom_series(tmp_path / "series", 1)
    (tmp_path / "notes").write_text("the result of yesterday")
    for name in ("dir.nii", "dir.dcm"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    for words in (("denoise", "--model", trained_run), ("noise",)):
        code, _, err = command(*words, scan, out, "--force")
        assert code == 2 and said in err and err.count("\n") == 1, err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_several_scans_asks_which(command, trained_run, save_nifti, tmp_path):
    for name in ("a", "b"):
        save_nifti(tmp_path / "in" / f"{name}.nii.gz", noisy_ct(1, 32)[1])
    code, _, err = command("denoise", tmp_path / "in", tmp_path / "out.nii.gz", "--model", trained_run)
    assert code == 2
    assert "series" in err
    options = ["--model", trained_run, "--series", 2]
    assert command("denoise", tmp_path / "in", tmp_path / "out.nii.gz", *options)[0] == 0


def test_clipping_is_chosen_at_the_command_line_and_in_the_record(command, trained_run, save_nifti, tmp_path):
    """Values beyond the window are restored there without clipping, and at its end with it."""
    clean = np.full((1, 32, 32), 980.0)  # HU, next to the window's end, 1000
    noisy = clean + 150 * np.random.default_rng(4).standard_normal(clean.shape)
    source = save_nifti(tmp_path / "in.nii", noisy)

    def restored(*options):
        given = ["--model", trained_run, "--noise", 150, "--modality", "CT", *options]
        code, _, err = command("denoise", source, tmp_path / "out.nii", "--force", *given)
        assert code == 0, err
        return record_of(tmp_path, "out.nii")["settings"], np.asarray(nib.load(tmp_path / "out.nii").dataobj)

    settings, image = restored("--steps", 3, "--clip")
    assert (settings["clip"], settings["estimate"]) == (True, "sample") and image.max() <= 1000.001
    settings, image = restored("--steps", 3, "--no-clip")
    assert settings["clip"] is False and image.max() > 1000.1
    assert restored("--clip")[0]["estimate"] == "sample"  # one call's mean is never clipped
    assert restored("--no-clip")[0] == restored()[0]  # which is what --no-clip says, so it stays


def test_the_tile_in_the_record_is_the_one_that_ran(command, trained_run, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii", noisy_ct(1, 32)[1])
    assert command("denoise", source, tmp_path / "out.nii", "--model", trained_run, "--tile", 19, "--force")[0] == 0
    assert record_of(tmp_path, "out.nii")["settings"]["tile"] == 16  # a multiple of 4, which the network takes


def test_a_phase_map_is_restored_only_when_asked_for(command, trained_run, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "sub-01_phasediff.nii.gz", noisy_ct()[1])
    code, _, err = command("denoise", source, tmp_path / "out.nii.gz", "--model", trained_run)
    assert code == 2
    said = "is a phase, whose values wrap round; expected a magnitude image (--phase restores it all the same)"
    assert err == f"error: sub-01_phasediff.nii.gz: {said}\n"
    assert command("denoise", source, tmp_path / "out.nii.gz", "--model", trained_run, "--phase")[0] == 0


def test_an_output_that_exists_is_replaced_only_when_asked_for(command, trained_run, save_nifti, tmp_path):
    source = save_nifti(tmp_path / "in.nii", noisy_ct()[1])
    for name in ("precious.nii", "data.raw"):
        (tmp_path / name).write_bytes(b"precious")
    for out in ("precious.nii", "data.mhd"):
        before = tree(tmp_path)
        for way in (("denoise", source, tmp_path / out, "--model", trained_run), ("noise", source, tmp_path / out)):
            code, _, err = command(*way)
            assert code == 2 and "exists, expected a new name for the output (--force replaces the file)" in err
        assert tree(tmp_path) == before
    assert command("noise", source, tmp_path / "precious.nii", "--force")[0] == 0
    assert command("noise", source, tmp_path / "precious.mha")[0] == 0  # whose record is another
    assert len(list(tmp_path.glob("precious.*.cdm4mi.json"))) == 2


def test_a_record_that_is_not_of_this_run_is_replaced_only_when_asked_for(command, trained_run, save_nifti, tmp_path):
    source, out, record = (
        save_nifti(tmp_path / "in.nii", noisy_ct()[1]),
        tmp_path / "o.nii",
        tmp_path / "o.nii.cdm4mi.json",
    )
    ways = ("denoise", source, out, "--model", trained_run, "--modality", "CT"), ("noise", source, out)
    record.write_bytes(b"precious")
    for way in ways:
        code, _, err = command(*way)
        assert code == 2 and "o.nii.cdm4mi.json: exists, expected a new name" in err
    assert record.read_bytes() == b"precious" and not out.exists()
    assert command(*ways[0], "--force")[0] == 0
    out.unlink()
    assert command(*ways[0], "--seed", 1)[0] == 2  # the record of another run
    assert command(*ways[0])[0] == 0 and out.exists()  # of this one, as a kill between the two leaves it
    record.unlink()
    record.mkdir()
    for way in ways:
        code, _, err = command(*way, "--force")
        assert code == 2 and "json: is a folder, expected the name of a file" in err


@pytest.mark.parametrize("name", ["restored_0.5mm", "1.2.840.99"])
def test_a_name_with_dots_is_a_folder(command, trained_run, name, tmp_path):
    dicom_series(tmp_path / "in")
    code, _, err = command("denoise", tmp_path / "in", tmp_path / name, "--model", trained_run)
    assert code == 0, err
    assert len(list((tmp_path / name).iterdir())) == 3
    assert "names no format" in command("denoise", tmp_path / "in", tmp_path / "out.jpg", "--model", trained_run)[2]
