"""Every path trains with the same command, also on a regression, and runs with the same restorer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import training_runs as runs

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models.checkpoint import load_model, save_model
from cdm4mi.training.run import train

RESIDUAL = {"path": "residual"}
PATHS = {
    "residual": RESIDUAL,
    "bridge": {"path": "bridge"},
    "bridge, precond": {"path": "bridge", "parameterization": "precond"},
    "i2sb": {"path": "i2sb"},
    "i2sb, x0": {"path": "i2sb", "parameterization": "x0"},
    "direct iteration": {"path": "bridge", "bridge_noise": 0.0, "parameterization": "x0", "conditioning_key": "none"},
}
SAMPLING = {"solver": "ddim", "steps": 4, "eta": 1.0, "estimate": "sample", "clip": False}


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


def trained(patches, out, model):
    unet = {"in_channel": 1 if model.get("conditioning_key") == "none" else 2, "dropout": 0.0}
    config = runs.tiny_config(patches, {**model, "unet": unet}, max_tsteps=3, warmup=0, learning_rate=1e-2)
    config.sampling = SamplingConfig(**SAMPLING)
    train(config, out, progress=False)
    return out / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def regression(patches, tmp_path_factory):
    return trained(patches, tmp_path_factory.mktemp("regression"), RESIDUAL | {"zero_terminal_snr": True})


def restored(model, **sampling):
    y = np.random.default_rng(0).standard_normal((2, 32, 32)).astype(np.float32) * 0.3
    return SliceRestorer(model, model.config.sampling.model_copy(update=sampling)).restore(y, 0.2, seed=1), y


@pytest.mark.parametrize("model", PATHS.values(), ids=list(PATHS))
def test_a_path_trains_and_restores(model, patches, tmp_path):
    loaded = load_model(trained(patches, tmp_path, model))
    for estimate in ("sample", "mean"):
        out, _ = restored(loaded, estimate=estimate)
        assert out.shape == (2, 32, 32) and np.isfinite(out).all()


@pytest.mark.parametrize("path", ["residual", "bridge", "i2sb"])
def test_a_path_on_a_regression_carries_it(path, patches, regression, tmp_path):
    loaded = load_model(trained(patches, tmp_path / "run", {"path": path, "regression": str(regression)}))
    inner = load_model(regression)
    assert loaded.regression is not None and loaded.regression.weight_hash == inner.weight_hash
    assert path == "bridge" or 0.01 < loaded.config.model.sigma_r < 1  # measured on the validation patients
    out, y = restored(loaded)
    # an untrained network's first call adds nothing to the anchor, which is the regression's mean and not y
    with torch.no_grad():
        cond = inner.process.condition(torch.from_numpy(y)[:, None], torch.full((2,), 0.2))
        mean = inner.process.mean(inner.network, cond)[:, 0].numpy()
    assert np.abs(mean - y).max() > 1e-3
    if path == "residual":
        first, _ = restored(loaded, estimate="mean")
        assert np.abs(first - mean).mean() < np.abs(first - y).mean()
    save_model(loaded, tmp_path / "model.safetensors", half=False)
    again, _ = restored(load_model(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(again, out)


def test_a_regression_must_have_a_mean(patches, tmp_path):
    eps = trained(patches, tmp_path / "eps", {"parameterization": "eps"})
    with pytest.raises(UserError, match=r"model.regression: .*found parameterization eps, expected precond"):
        trained(patches, tmp_path / "run", {"path": "bridge", "regression": str(eps)})
    with pytest.raises(UserError, match="no such file"):
        trained(patches, tmp_path / "run", {"path": "bridge", "regression": str(tmp_path / "nothing.ckpt")})
