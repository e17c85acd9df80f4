"""``cdm4mi inspect`` of models: what they are, in numbers that can be checked, and nothing of a patient."""

import re

import torch
from scans_on_disk import SECRETS

from cdm4mi.models.checkpoint import load_model, save_model


def facts(out):
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines() if "  " in line)


def test_a_runs_checkpoint(command, trained_run):
    code, out, err = command("inspect", trained_run / "checkpoints" / "last.ckpt")
    assert (code, err) == (0, "")
    found = facts(out)
    model = load_model(trained_run / "checkpoints" / "last.ckpt")
    assert found["network"].startswith("Rosinality UNet, channel 32 x (1, 2), 1 block(s) a level")
    assert found["parameters"] == f"{sum(p.numel() for p in model.network.parameters()):,}"
    assert found["conditioning key"] == "concat"
    assert found["parameterization"] == "precond"
    assert found["schedule"].startswith("log_sigma, 100 timesteps, at the last: signal 0.316, noise 0.949")
    assert "variance 0.0064 to 0.09" in found["noise in training"]
    assert "standard deviation 0.08 to 0.3" in found["noise in training"]
    assert found["patients"] == "2 in training, 1 in validation"
    assert found["training steps"] == "60 of 60"
    assert found["weights (SHA-256)"] == model.weight_hash


def test_a_runs_folder_is_its_best_checkpoint_as_for_denoise(command, trained_run):
    best = command("inspect", trained_run / "checkpoints" / "best.ckpt")
    assert command("inspect", trained_run) == best
    assert best[0] == 0


def test_no_names_of_training_patients_and_the_same_from_safetensors(command, tiny, tmp_path):
    data = tiny.about.data.model_copy(update={"patients_train": list(SECRETS)})
    tiny.about = tiny.about.model_copy(update={"data": data})
    save_model(tiny, tmp_path / "model.safetensors", half=False)
    code, out, err = command("inspect", tmp_path / "model.safetensors")
    assert (code, err) == (0, "")
    assert facts(out)["patients"] == f"{len(SECRETS)} in training, 1 in validation"
    assert facts(out)["weights (SHA-256)"] == tiny.weight_hash
    assert not any(secret in out for secret in SECRETS)


def test_notices_are_shown(command, trained_run, tmp_path):
    checkpoint = torch.load(trained_run / "checkpoints" / "last.ckpt", weights_only=True)
    del checkpoint["ema"]
    torch.save(checkpoint, tmp_path / "raw.ckpt")
    assert "notice: the checkpoint has no averaged weights" in command("inspect", tmp_path / "raw.ckpt")[1]


def test_what_is_no_model_is_one_line(command, tmp_path):
    (tmp_path / "x.ckpt").write_text("text")
    code, out, err = command("inspect", tmp_path / "x.ckpt")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
