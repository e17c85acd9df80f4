"""A model as an ONNX graph: ONNX Runtime computes what PyTorch does, at any size, and the file says what goes in."""

import json

import numpy as np
import pytest
import torch
from awake_network import awake

from cdm4mi.config import parse_config
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.export import export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


def tiny(model, data=None, **unet):
    unet = {"channel": 16, "channel_multiplier": [1], "n_res_blocks": 1, "dropout": 0.0, "norm_groups": 4} | unet
    config = parse_config({"model": {"image_size": 32, "unet_rosinality_config": unet} | model, "data": data or {}})
    return TrainedModel(awake(build_network(config.model)).eval(), build_process(config.model), config, name="tiny")


RESIDUAL = {"path": "residual", "level_channel": True, "texture_channels": True}


def test_the_mean_is_that_of_pytorch_at_any_size(tmp_path):
    model = tiny(
        RESIDUAL, {"level_map_share": 0.5}, in_channel=6, attn_strides=[], attn_middle=False, norm="pixel", fold=2
    )
    file = tmp_path / "model.onnx"
    described = export_onnx(model, file)
    assert list(described) == ["y", "sigma", "relative_level", "texture", "x0"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    y, relative = torch.randn(5, 1, 10, 18), torch.rand(5, 1, 10, 18) + 0.5
    sigma, texture = torch.linspace(0.01, 0.5, 5), torch.rand(5, 3)
    cond = model.process.condition(y, sigma, texture=texture, relative_level=relative)
    with torch.no_grad():
        expected = model.process.mean(model.network, cond).numpy()
    given = {"y": y, "sigma": sigma, "relative_level": relative, "texture": texture}
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["weight_hash"] == model.weight_hash
    assert int(metadata["size_multiple"]) == 2
    assert json.loads(metadata["inputs"]) == described
    assert "Not for clinical use" in metadata["use"]


def test_a_step_is_that_of_pytorch_where_a_model_has_no_mean(tmp_path):
    model = tiny(
        {"parameterization": "eps", "conditioning_key": "concat"}, in_channel=2, attn_strides=[1], attn_middle=False
    )
    file = tmp_path / "model.onnx"
    assert list(export_onnx(model, file)) == ["x_t", "t", "y", "x0"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x_t, y = torch.randn(2, 4, 1, 12, 8)
    t = torch.tensor([0, 10, 500, 800])
    with torch.no_grad():
        expected = model.process.denoiser(model.network, model.process.condition(y, torch.zeros(4)))(x_t, t).numpy()
    (found,) = session.run(None, {"x_t": x_t.numpy(), "t": t.numpy(), "y": y.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_place_that_cannot_be_is_refused_before_the_work(command, tmp_path, monkeypatch):
    monkeypatch.setattr("cdm4mi.models.checkpoint.load_model", None)  # a call of it is a TypeError
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    for out, said in (("file/x.onnx", "cannot be written, as "), ("folder.onnx", "is a folder, expected the name")):
        code, _, err = command("export", tmp_path / out, "--force")
        assert code == 2 and said in err and err.count("\n") == 1, err
