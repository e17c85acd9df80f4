"""A whole run: what it logs and writes, its precisions, and that it learns an image."""

import csv
import importlib.util
import logging
import os
import warnings

import h5py
import lightning as L
import numpy as np
import pytest
import torch
import training_runs as runs
from PIL import Image

from cdm4mi.config.load import load_config
from cdm4mi.config.portable import portable
from cdm4mi.diffusion import make_solver
from cdm4mi.diffusion.noise import SeededNoise
from cdm4mi.diffusion.sampling import sample
from cdm4mi.diffusion.times import time_list
from cdm4mi.errors import UserError
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import load_model
from cdm4mi.networks import precision as precisions
from cdm4mi.training import pictures
from cdm4mi.training.run import train


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """A short run with validation, accumulation and clipping: (folder, configuration)."""
    out = tmp_path_factory.mktemp("run")
    config = runs.tiny_config(patches, accumulate=2, max_tsteps=12, gradient_clip=0.05)
    assert train(config, out, progress=False) == out / "checkpoints" / "last.ckpt"
    return out, config


def logged(out):
    """Column -> {step: value} of metrics.csv."""
    table = {}
    with next((out / "logs").rglob("metrics.csv")).open() as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if value and column != "step":
                    table.setdefault(column, {})[int(row["step"])] = float(value)
    return table


def test_everything_promised_is_logged_at_every_turn(finished):
    table = logged(finished[0])
    every_two = {1, 3, 5, 7, 9, 11}
    for column in ("train/loss", "train/gradient_norm", "train/images_per_second", "train/memory_gib", "lr-AdamW"):
        assert set(table[column]) == every_two, column
    quarters = [f"val/loss_t{q}of4" for q in (1, 2, 3, 4)]
    for column in ("val/loss", "val/loss_raw", *quarters):
        assert set(table[column]) == {3, 7, 11}, column
    assert np.mean([table[q][11] for q in quarters]) == pytest.approx(table["val/loss"][11], rel=1e-4)
    assert 0 < table["train/memory_gib"][11] < 8
    assert table["train/images_per_second"][11] > 0
    assert list((finished[0] / "tensorboard").rglob("events.*"))


def test_the_configuration_is_beside_and_in_the_checkpoint(finished):
    out, config = finished
    assert load_config(out / "config.yaml") == config
    state = runs.checkpoint(out)
    assert state["cdm4mi"]["config"] == portable(config)
    assert load_model(out).config == config
    for file in (out / "checkpoints").iterdir():  # stored without compression
        assert not [folder for folder in (out, config.data.paths[0]) if str(folder).encode() in file.read_bytes()]
    data = state["cdm4mi"]["data"]
    assert not set(data["patients_train"]) & set(data["patients_val"])


def test_the_best_checkpoint_is_the_one_of_least_validation_loss(finished):
    losses = logged(finished[0])["val/loss"]
    assert runs.checkpoint(finished[0], "best")["global_step"] == min(losses, key=losses.get) + 1
    assert runs.checkpoint(finished[0])["global_step"] == 12


def test_the_gradient_is_clipped_to_the_norm_and_logged_as_it_was(patches, tmp_path, monkeypatch):
    norms, make = [], L.Trainer

    class Norm(L.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            grads = [p.grad.norm() for p in module.parameters() if p.grad is not None]
            norms.extend([float(torch.stack(grads).norm())] if grads else [])

    monkeypatch.setattr(L, "Trainer", lambda *a, callbacks, **k: make(*a, callbacks=[*callbacks, Norm()], **k))
    config = runs.tiny_config(patches, max_tsteps=6, gradient_clip=0.01, log_every=1)
    train(config, tmp_path, progress=False)
    assert norms
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    assert min(logged(tmp_path)["train/gradient_norm"].values()) > 0.01


def test_the_gradient_norm_is_that_of_the_step_it_is_logged_for(patches, tmp_path, monkeypatch):
    norms, make = [], L.Trainer

    class Norm(L.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            norms.append(float(torch.stack([p.grad.norm() for p in module.parameters()]).norm()))

    monkeypatch.setattr(L, "Trainer", lambda *a, callbacks, **k: make(*a, callbacks=[*callbacks, Norm()], **k))
    train(runs.tiny_config(patches, max_tsteps=6, log_every=3), tmp_path, progress=False)
    table = logged(tmp_path)["train/gradient_norm"]
    assert table == pytest.approx({2: norms[2], 5: norms[5]}, rel=1e-5)
    assert len({round(norm, 6) for norm in norms}) == 6


def test_a_short_run_logs_and_draws_once_at_its_end(patches, tmp_path, monkeypatch):
    """Fewer steps than there are between two lines of the log, or two pictures; validation in batches of two."""
    drawn, draw = [], pictures.denoising_picture
    monkeypatch.setattr(pictures, "denoising_picture", lambda path, *rest: (drawn.append(path.name), draw(path, *rest)))
    config = runs.tiny_config(patches, max_tsteps=2, accumulate=3, batch_size=1, log_every=50, picture_every=1000)
    train(config, tmp_path, progress=False)
    table = logged(tmp_path)
    for column in ("train/loss", "train/gradient_norm", "train/images_per_second", "val/loss", "val/loss_raw"):
        assert set(table[column]) == {1}, column
    assert {f"val/loss_t{q}of4" for q in (1, 2, 3, 4)} <= set(table), "no quarter of the path may be left out"
    assert drawn == ["step-0000002.png"]
    with Image.open(tmp_path / "pictures" / drawn[0]) as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_precisions_run_on_the_cpu_with_float32_weights_and_losses(precision, patches, tmp_path):
    # with a decay of zero the average is the weights themselves
    config = runs.tiny_config(patches, precision=precision, max_tsteps=4, ema_decay_factor=0.0)
    state = torch.load(train(config, tmp_path, progress=False), weights_only=True)
    assert {v.dtype for v in state["state_dict"].values()} == {torch.float32}
    assert all(torch.isfinite(v).all() for v in state["state_dict"].values())
    table = logged(tmp_path)
    assert np.isfinite(list(table["train/loss"].values())).all()
    assert table["val/loss"] == table["val/loss_raw"], "not measured in the same precision"


def test_bf16_is_used_where_asked_for(patches, tmp_path):
    out = {}
    for precision in ("32", "bf16"):
        config = runs.tiny_config(patches, precision=precision, max_tsteps=3)
        train(config, tmp_path / precision, progress=False)
        out[precision] = runs.checkpoint(tmp_path / precision)["state_dict"]
    difference = max(float((out["32"][k] - out["bf16"][k]).abs().max()) for k in out["32"])
    assert 0 < difference < 0.01


@pytest.mark.parametrize(("instructions", "expected"), [(True, "bf16"), (False, "32")])
def test_auto_is_the_fastest_precision_of_the_device_and_the_run_says_which(
    instructions, expected, patches, tmp_path, monkeypatch
):
    monkeypatch.setattr(precisions, "bf16_instructions", lambda: instructions)
    train(runs.tiny_config(patches, precision="auto", accelerator="cpu", max_tsteps=2), tmp_path, progress=False)
    assert load_config(tmp_path / "config.yaml").training.precision == expected
    assert runs.checkpoint(tmp_path)["cdm4mi"]["config"]["training"]["precision"] == expected


def test_a_machine_with_slurm_is_no_reason_to_warn(patches, tmp_path, monkeypatch):
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        train(runs.tiny_config(patches, max_tsteps=2), tmp_path / "run", progress=False)
    assert not [warning for warning in found if "srun" in str(warning.message)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU, which does fp16")
def test_fp16_without_a_gpu_is_one_clear_line(patches, tmp_path):
    with pytest.raises(
        UserError, match=r"training\.precision: found fp16 without a CUDA GPU, expected auto, 32 or bf16"
    ):
        train(runs.tiny_config(patches, precision="fp16"), tmp_path, progress=False)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="has the package")
def test_wandb_without_its_package_is_one_clear_line(patches, tmp_path):
    with pytest.raises(UserError, match=r"training\.wandb: found true without the package, expected: pip install"):
        train(runs.tiny_config(patches, wandb=True), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss_type", ["l1", "huber"])
def test_other_losses_run_whole(loss_type, patches, tmp_path):
    """Into a folder that is given as text."""
    train(runs.tiny_config(patches, loss_type=loss_type, max_tsteps=2), str(tmp_path), progress=False)
    assert np.isfinite(list(logged(tmp_path)["train/loss"].values())).all()


def test_without_ema_validation_is_of_the_weights(patches, tmp_path):
    train(runs.tiny_config(patches, use_ema=False, max_tsteps=4), tmp_path, progress=False)
    assert "ema" not in runs.checkpoint(tmp_path)
    assert set(logged(tmp_path)["val/loss"]) == {3}


def test_one_patient_is_trained_on_with_a_warning(tmp_path, caplog):
    folder = tmp_path / "patches"
    folder.mkdir()
    with h5py.File(folder / "only_0.h5", "w") as file:
        file["data"] = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with caplog.at_level(logging.WARNING, "cdm4mi.training"):
        train(runs.tiny_config(folder, max_tsteps=1), tmp_path / "out", progress=False)
    assert "one patient only" in caplog.text


def test_overfits_one_image_and_samples_it_from_noise(tmp_path):
    """Unconditional, 200 steps: the loss falls by more than 8, and DDIM from pure noise draws the image at 20 dB."""
    place = np.linspace(-1, 1, runs.SIDE)
    radius = np.hypot(*np.meshgrid(place, place))
    ring = np.where((radius > 0.35) & (radius < 0.75), 220, 30) * (radius < 1.1)  # the same however turned
    folder = tmp_path / "patches"
    folder.mkdir()
    with h5py.File(folder / "ring_0.h5", "w") as file:
        file["data"] = ring.astype(np.uint8)
    config = runs.tiny_config(
        folder,
        model={
            "conditioning_key": "none",
            "parameterization": "v",
            "beta_schedule": "cosine",
            "unet": {"in_channel": 1, "channel_multiplier": [1, 2], "dropout": 0.0},
        },
        max_tsteps=200,
        batch_size=6,
        learning_rate=2e-3,
        betas=[0.9, 0.99],
        ema_decay_factor=0.98,
        val_every=200,
        checkpoint_every=200,
        log_every=1,
    )
    state = torch.load(train(config, tmp_path / "out", progress=False), weights_only=True)
    losses = [v for _, v in sorted(logged(tmp_path / "out")["train/loss"].items())]
    fall = np.mean(losses[:10]) / np.mean(losses[-20:])

    network = build_network(config.model).eval()
    network.load_state_dict(state["ema"]["weights"], strict=False)
    process = build_process(config.model)
    nothing = torch.zeros(4, 1, runs.SIDE, runs.SIDE)
    noise = SeededNoise(0, range(4), (1, runs.SIDE, runs.SIDE))
    images = sample(
        process.denoiser(network, process.condition(nothing, torch.zeros(4))),
        process.path,
        time_list("trailing", process.path.timesteps, 20),
        make_solver("ddim"),
        noise.draw(0),
        noise=noise.draw,
        clip=True,
    )
    error = ((images[:, 0] - torch.from_numpy(ring / 255 * 2 - 1)) ** 2).mean((1, 2))
    psnr = 10 * torch.log10(4 / error)
    print(f"loss fell by {fall:.1f}, PSNR of four samples {psnr.tolist()}")
    assert fall > 8
    assert float(psnr.min()) > 20
