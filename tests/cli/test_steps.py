"""``cdm4mi steps``: which way of sampling is chosen and why, on whom it is measured, and that denoise then uses it."""

import csv
import shutil

import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.choices import SOLVERS
from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation import steps
from cdm4mi.models import build_process
from cdm4mi.models.checkpoint import TrainedModel, load_model


def row(calls, psnr, spectrum, name="ddim"):
    return steps.Row(name, {"steps": calls}, calls, psnr, 0.8, spectrum, 0.1)


def test_texture_comes_first_then_psnr_then_the_fewest_calls():
    blurred, coarse, good, cheaper, long = (
        row(1, 28.0, 2.5),  # nearest the mean, and no sample
        row(4, 25.0, 1.85),  # texture good enough, 0.5 dB worse
        row(20, 25.5, 1.75),
        row(10, 25.42, 1.8),  # within both margins of the best
        row(50, 25.2, 1.7),  # the least spectrum error
    )
    assert steps.knee([blurred, coarse, good, cheaper, long]) is cheaper
    assert steps.knee([blurred, coarse, good, long]) is good
    assert steps.knee([blurred]) is blurred
    equal = row(10, 25.45, 1.8, "dpmpp_2m")
    assert steps.knee([good, cheaper, equal, long]) is equal


def ways(**model):
    config = parse_config({"model": model})
    return steps.ways_for(TrainedModel(None, build_process(config.model), config, name="m"))


def test_every_solver_that_the_path_takes_is_tried_at_every_number_of_calls():
    plain = ways(path="residual")
    assert {settings["solver"] for _, settings in plain} == {name for name, its in SOLVERS.items() if its.study}
    assert [s["steps"] for name, s in plain if name == "Heun"] == [2, 5, 10, 25]  # 3, 9, 19 and 49 calls
    assert [s["steps"] for name, s in plain if name == "DPM-Solver++ 2M"] == [2, 4, 10, 20, 50]
    assert [name for name, _ in plain].count("one call") == 1
    assert {settings["solver"] for _, settings in ways(path="i2sb")} == {"ddim"}  # its last time has no noise
    assert max(settings["steps"] for _, settings in ways(timesteps=10, parameterization="x0")) == 10


def test_a_distilled_models_own_times_are_among_them(tiny):
    tiny.config.sampling = tiny.config.sampling.model_copy(update={"times": [99, 60]})
    name, settings = steps.ways_for(tiny)[0]
    assert (name, settings["times"]) == ("the checkpoint's times", [99, 60])
    crops = steps.held_out_crops(tiny, scans_of(tiny)[0].parent, 2).crops
    rows = steps.study(tiny, crops[:1])
    assert rows[0].calls == 2 and steps.as_default(tiny, rows[0]).times == [99, 60]


def scans_of(model):
    from pathlib import Path

    return [Path(p) for p in model.config.data.paths]


@pytest.fixture
def few(monkeypatch):
    """Only a few calls, for a quick study."""
    monkeypatch.setattr(steps, "CALLS", (1, 2, 4))


@pytest.fixture
def folder(trained_run, tmp_path, save_nifti):
    """A folder with two new patients and one whom the model was trained on."""
    model = load_model(trained_run)
    for person in (7, 8):
        clean = np.stack([phantom("CT", 90 + 3 * person + k, 64) for k in range(2)])
        save_nifti(tmp_path / "scans" / f"sub-{person:02d}.nii.gz", clean)
    from cdm4mi.data.names import patient_hash

    trained = next(p for p in scans_of(model) if patient_hash(p.name[:6]) in model.about.data.patients_train)
    shutil.copy(trained, tmp_path / "scans")
    return tmp_path / "scans"


def test_crops_are_of_patients_that_the_model_has_not_seen(tiny, folder):
    found = steps.held_out_crops(tiny, folder, 5)
    assert (found.patients, found.left_out, len(found.crops)) == (2, 1, 5)
    assert {crop.patient for crop in found.crops} == {"sub-07", "sub-08"}
    for crop in found.crops:
        assert crop.x0.shape == (32, 32) and np.abs(crop.x0).max() <= 1
        assert (crop.y - crop.x0).std() == pytest.approx(crop.level, rel=0.15)
        assert 0.08 <= crop.level <= 0.3  # the model's training noise
    again = steps.held_out_crops(tiny, folder, 5).crops
    assert all(np.array_equal(a.y, b.y) for a, b in zip(found.crops, again, strict=True))


def test_only_patients_of_the_training_are_refused(tiny, folder):
    for person in (7, 8):
        (folder / f"sub-{person:02d}.nii.gz").unlink()
    with pytest.raises(UserError, match=r"found 1 patient\(s\), all of whom best.ckpt was trained on"):
        steps.held_out_crops(tiny, folder, 4)


def test_the_command_prints_draws_and_writes_what_denoise_then_uses(command, few, trained_run, folder, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    code, said, err = command("steps", run, folder, "--out", tmp_path / "study", "--samples", 4, "--write")
    assert code == 0, err
    assert "left out: 1 patient(s) whom the model was trained on" in err
    assert "Chosen (*): the fewest network calls" in said and "gaussian, variance" in said
    assert "its default estimate stays the mean" in said
    with (tmp_path / "study" / "steps.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 1 + 5 * 2 + 1  # one call; five solvers at 2 and 4 calls; heun at 3
    (best,) = (line for line in table if line["chosen"] == "1")
    assert all(float(line["seconds_per_image"]) > 0 and 5 < float(line["psnr_db"]) < 60 for line in table)
    assert (tmp_path / "study" / "steps.png").read_bytes().startswith(b"\x89PNG")
    model = load_model(run)
    sampling = model.config.sampling
    assert (sampling.solver, str(sampling.steps), sampling.spacing) == (best["solver"], best["steps"], best["spacing"])
    assert model.about.steps_study.psnr == pytest.approx(float(best["psnr_db"]), rel=1e-4)
    assert model.weight_hash == load_model(trained_run).weight_hash
    scan, out = folder / "sub-07.nii.gz", tmp_path / "out.nii.gz"
    code, said, err = command("denoise", scan, out, "--model", run, "--estimate", "sample", "--noise", 150)
    assert code == 0 and f"{best['calls']} network call" in said, err
    assert io.read(out).shape == (2, 64, 64)
    before = (tmp_path / "study" / "steps.csv").read_bytes()
    code, said, err = command("steps", run, folder, "--out", tmp_path / "study", "--samples", 4)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "steps.csv: exists, expected a new name for the output (--force replaces the file)" in err
    assert (tmp_path / "study" / "steps.csv").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["absent.ckpt", "."], "absent.ckpt: no such file"),
        (["RUN", "nowhere"], "nowhere: found nothing"),
        (["RUN"], "Missing argument 'DATA'"),
        (["RUN", ".", "--samples", "1"], "--samples"),
    ],
)
def test_a_wrong_line_is_one_line(command, trained_run, arguments, expected):
    code, said, err = command("steps", *(str(trained_run) if a == "RUN" else a for a in arguments))
    assert (code, said, err.count("\n")) == (2, "", 1) and expected in err
