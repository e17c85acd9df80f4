"""`cdm4mi calibrate`: what it writes into a checkpoint is what `denoise --uncertainty` goes by."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scans_on_disk import dicom_slice

from cdm4mi import io
from cdm4mi.data.sources import load_patients
from cdm4mi.errors import UserError
from cdm4mi.inference.calibrate import _unread, calibrate
from cdm4mi.inference.settings import changed
from cdm4mi.models.checkpoint import load_model

WAY = ("--steps", 2, "--samples", 3)


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A copy of the trained run, to write into."""
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("calibrated") / "run")


def test_calibrated_intervals_are_kept_and_used(command, run, tmp_path):
    before = load_model(run)
    code, said, err = command("calibrate", run, *WAY, "--patches", 8)
    assert code == 0, err
    assert "90 % intervals cover" in said and "best.ckpt" in said
    assert "CT: 1 scan, a bound for 90 % of scans needs 9" in said
    after = load_model(run)
    assert after.weight_hash == before.weight_hash
    calibration = after.about.calibration
    assert calibration.settings["steps"] == 2 and calibration.settings["samples"] == 3
    scan, out, deviation = dicom_slice(tmp_path / "in.dcm", sigma=60), tmp_path / "out.dcm", tmp_path / "map.nii.gz"
    arguments = ("denoise", scan, out, "--model", run, "--uncertainty", deviation, "--noise", 100)
    code, said, err = command(*arguments, *WAY)
    assert code == 0, err
    assert "map.nii.gz: standard deviation, calibrated for white noise in CT images: 90% of voxels" in said
    record = json.loads((tmp_path / "out.dcm.cdm4mi.json").read_text())
    assert record["uncertainty"]["calibrated"] and record["uncertainty"]["interval"] == 0.9
    assert record["uncertainty"].get("scan_half_width_in_standard_deviations") is None
    # nowhere surer than the floor: it is in the scan's units, HU here
    kind = calibration.kinds["white noise in CT images"]
    ratio = record["uncertainty"].get("bootstrap", 1.0) ** kind.bootstrap_power
    floor = kind.scale * ratio * kind.floor * record["noise_level"]["used"]
    assert io.read(deviation).array.min() >= floor * 0.999
    for others in (("--steps", 3, "--samples", 3), (*WAY, "--strength", 0.5)):
        code, said, err = command(*arguments, *others, "--force")
        assert code == 0, err
        assert "map.nii.gz: standard deviation of the samples, not calibrated: the calibration is for other" in said
        record = json.loads((tmp_path / "out.dcm.cdm4mi.json").read_text())
        assert not record["uncertainty"]["calibrated"] and "other sampling settings" in record["uncertainty"]["why"]


def test_patients_of_the_training_are_refused(command, run):
    config = load_model(run).config
    names = [p.name for p in load_patients(config.data, config.model.image_size, config.seed)]
    code, _, err = command("calibrate", run, *WAY, f"val_patients=[{names[0]}, {names[1]}]")
    best = run / "checkpoints" / "best.ckpt"
    assert (
        code == 2
        and f"{best}: 2 of the validation patients were trained on" in err
        and len(err.strip().splitlines()) == 1
    )


def test_dead_leaves_are_fitted_and_not_counted(run, monkeypatch):
    """Two patches of five where the training has some, none elsewhere."""
    model, asked = load_model(run), []
    monkeypatch.setattr("cdm4mi.inference.calibrate.fit_calibration", lambda *_, **given: asked.append(given["scans"]))
    sampling = changed(model.config.sampling, estimate="mean-of-k", steps=2, samples=2)
    augment = model.config.data.augment.model_copy(update={"leaves": 0.2})
    data = model.config.data.model_copy(update={"augment": augment})
    calibrate(model, model.config.model_copy(update={"data": data}), sampling, patches=5)
    calibrate(model, sampling=sampling, patches=5)
    assert asked == [[True, False, True, False, True], [True] * 5]


def test_the_texture_that_is_told_is_the_noise_s_own(run, monkeypatch):
    """However often the training told a wrong one: CT is never a magnitude."""
    model, asked = load_model(run), []
    monkeypatch.setattr("cdm4mi.inference.calibrate.fit_calibration", lambda *given, **_: asked.append(given[5]))
    sampling = changed(model.config.sampling, estimate="mean-of-k", steps=2, samples=2)
    data = model.config.data.model_copy(update={"texture_jitter": 1.0})
    calibrate(model, model.config.model_copy(update={"data": data}), sampling, patches=5)
    assert set(asked[0]) == {"white noise in CT images"}


def test_slices_that_the_training_left_out_stand_in_for_a_modality_that_nobody_validates(run):
    model = load_model(run)
    seen = set(model.about.data.slice_hashes[::2])
    data = model.about.data.model_copy(update={"slice_hashes": sorted(seen)})
    model = replace(model, about=model.about.model_copy(update={"data": data}))
    found = _unread(model, model.config, {"MR"})
    every = load_patients(model.config.data, model.config.model.image_size, model.config.seed)
    left_out = [image for p in every for image, digest in zip(p.slices, p.hashes, strict=True)
                if digest[:8].hex() not in seen]  # fmt: skip
    assert 0 < len(left_out) < sum(len(p.slices) for p in every)
    np.testing.assert_array_equal([image for p in found for image in p.slices], left_out)
    with pytest.raises(UserError, match="found no slices"):
        _unread(model, model.config, {"CT"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no such file"),
        (("shipped",), "shipped: is the package's own model, which stays as it is, expected a checkpoint"),
        (("RUN", "--samples", 1), "samples: found 1, expected at least 2"),
        (("RUN", "paths=nowhere"), "nowhere"),
        (("RUN", "--patches", 0), "patches"),
        (("RUN", "--unread-slices"), "found no slices that the training left out"),
    ],
)
def test_a_mistake_is_one_line(command, run, tmp_path, arguments, message):
    code, _, err = command("calibrate", *(run if a == "RUN" else a for a in arguments))
    assert code == 2 and message in err, err
