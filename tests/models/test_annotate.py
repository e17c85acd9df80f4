"""Facts and a way of sampling written into a checkpoint after its training: found again, and nothing else changed."""

import shutil

import pytest
import torch
from safetensors import safe_open

from cdm4mi.errors import UserError
from cdm4mi.models.about import Calibration, StepsStudy
from cdm4mi.models.annotate import annotate
from cdm4mi.models.checkpoint import load_model, save_model

CALIBRATION = Calibration(settings={"steps": 4}, coverage_before=0.8, coverage_after=0.9)
STUDY = StepsStudy(rule="the least", psnr=30.0, ssim=0.9, spectrum_error=1.0, levels=(0.1, 0.2))


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a run that may be written to."""
    return shutil.copytree(trained_run, tmp_path / "run")


def test_a_checkpoint_keeps_its_weights_and_gains_what_it_is_told(run):
    before = load_model(run)
    plain = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    few = before.config.sampling.model_copy(update={"estimate": "sample", "steps": 4})
    written = annotate(run, few, calibration=CALIBRATION)
    after = load_model(run)
    assert written == run / "checkpoints" / "best.ckpt"
    assert after.weight_hash == before.weight_hash
    assert after.config.sampling == few and after.config.model == before.config.model
    assert after.about == before.about.model_copy(update={"calibration": CALIBRATION})
    again = torch.load(written, weights_only=True)
    assert again.keys() == plain.keys() and again["optimizer_states"][0].keys() == plain["optimizer_states"][0].keys()


def test_a_fact_told_twice_is_replaced_and_a_fact_alone_leaves_the_sampling(run):
    annotate(run, calibration=CALIBRATION)
    annotate(run, calibration=CALIBRATION.model_copy(update={"coverage_after": 0.4}))
    model = load_model(run)
    assert model.about.calibration.coverage_after == 0.4 and model.config.sampling.estimate == "mean"


def test_safetensors_stay_in_half_precision_with_their_card(tiny, tmp_path):
    file = tmp_path / "model.safetensors"
    save_model(tiny, file, card="who made it")
    before = load_model(file)
    annotate(file, tiny.config.sampling.model_copy(update={"steps": 3}), steps_study=STUDY)
    after = load_model(file)
    assert after.weight_hash == before.weight_hash and after.config.sampling.steps == 3
    assert (after.about.steps_study, after.about.card) == (STUDY, "who made it")
    with safe_open(file, "pt") as f:
        assert {f.get_tensor(k).dtype for k in f.keys()} == {torch.float16}  # noqa: SIM118


def test_what_is_no_checkpoint_of_ours_is_refused_and_left_alone(tiny, tmp_path):
    original = tmp_path / "original.ckpt"
    weights = {f"model.{k}": v for k, v in tiny.network.state_dict().items()}
    torch.save({"state_dict": weights}, original)
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(b"PK\x03\x04 no more")
    for file in (original, damaged, tmp_path / "absent.ckpt"):
        content = file.read_bytes() if file.exists() else None
        with pytest.raises(UserError, match=file.name):
            annotate(file, calibration=CALIBRATION)
        assert content is None or file.read_bytes() == content
