"""A training that begins with a trained model's weights: where it begins, what it says of that, and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
import training_runs as runs

from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import load_model
from cdm4mi.training.run import PairData, train

STEADY = {"max_tsteps": 1, "learning_rate": 1e-12, "warmup": 0}


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def first(patches, tmp_path_factory):
    """The run that the others begin with."""
    out = tmp_path_factory.mktemp("first")
    train(runs.tiny_config(patches, use_ema=False, learning_rate=0.02), out, progress=False)
    return out


def begun(first, patches, out, model=None, **training):
    train(runs.tiny_config(patches, model, initial_weights=str(first), **STEADY, **training), out, progress=False)
    return load_model(out / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("blocks", [1, 3])
def test_it_begins_with_them_also_with_more_blocks(first, patches, tmp_path, blocks):
    """A rate next to nothing shows the beginning: outputs of the first model, in its weights and their averages."""
    earlier, model = load_model(first), begun(first, patches, tmp_path, {"unet": {"n_res_blocks": blocks}})
    assert model.config.model.unet_rosinality_config.n_res_blocks == blocks
    x, y, t = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16), torch.tensor([3, 40])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, t, y), earlier.network(x, t, y), rtol=1e-3, atol=1e-4)
    assert model.about.initial_weights == earlier.weight_hash


def test_whom_the_weights_have_seen_is_known_also_after_a_resume(first, tmp_path):
    """Other people train it further: both are in the checkpoint, so that no study takes either for unseen."""
    other = runs.patch_folder(tmp_path / "others")
    for file in sorted(other.iterdir()):
        file.rename(file.with_name(file.name.replace("sub-0", "sub-9")))
    begun(first, other, tmp_path / "run")
    gone = shutil.move(first, tmp_path / "gone")
    try:
        longer = runs.tiny_config(other, initial_weights=str(first), **{**STEADY, "max_tsteps": 2})
        train(longer, tmp_path / "run", resume=True, progress=False)
    finally:
        shutil.move(gone, first)
    earlier, now = (load_model(out / "checkpoints" / "last.ckpt") for out in (first, tmp_path / "run"))
    assert now.about.step == 2
    assert now.about.initial_weights == load_model(first).weight_hash
    assert set(earlier.about.data.patients_train) < set(now.about.data.patients_train)
    assert set(earlier.about.data.slice_hashes) <= set(now.about.data.slice_hashes)
    assert not set(now.about.data.patients_train) & set(now.about.data.patients_val)


def test_validation_on_whom_the_first_model_was_trained_on_is_said(first, patches, tmp_path, caplog):
    begun(first, patches, tmp_path / "same")
    assert "trained before" not in caplog.text
    trained = min(PairData(runs.tiny_config(patches)).train_names)
    config = runs.tiny_config(patches, data={"val_patients": [trained]}, initial_weights=str(first), **STEADY)
    train(config, tmp_path / "other", progress=False)
    assert f"data: 1 validation patient, first {trained}, on whom the weights were trained before" in caplog.text


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"unet": {"channel": 64}}, "found model.unet_rosinality_config.channel 32, expected 64"),
        ({"timesteps": 60}, "found model.timesteps 50, expected 60"),
    ],
)
def test_another_network_is_refused(first, patches, tmp_path, model, message):
    with pytest.raises(UserError, match=message):
        begun(first, patches, tmp_path / "run", model)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_deeper_network_and_no_file_are_refused(first, patches, tmp_path):
    begun(first, patches, tmp_path / "deep", {"unet": {"n_res_blocks": 2}})
    with pytest.raises(UserError, match="n_res_blocks 2, expected at most 1"):
        begun(tmp_path / "deep" / "checkpoints" / "last.ckpt", patches, tmp_path / "run")
    with pytest.raises(UserError, match="no such file, expected a checkpoint"):
        begun(tmp_path / "missing.ckpt", patches, tmp_path / "run")


def test_the_shipped_weights_have_a_name(patches, tmp_path):
    with pytest.raises(UserError, match=r"initial_weights: shipped: found model\.timesteps 1000, expected 50"):
        begun("shipped", patches, tmp_path / "run")
