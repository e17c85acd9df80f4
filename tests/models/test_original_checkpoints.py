"""Checkpoints as the original work's Lightning code leaves them: they load, give its outputs, and run nothing."""

import os
import pathlib
import sys
import types

import pytest
import torch
from omegaconf import OmegaConf
from original_network import network_output

from cdm4mi.config import parse_config
from cdm4mi.diffusion.schedules import make_betas
from cdm4mi.errors import UserError
from cdm4mi.models import build_network
from cdm4mi.models.checkpoint import load_model
from cdm4mi.models.ckpt_file import read_ckpt

UNET = {
    "in_channel": 2,
    "out_channel": 1,
    "channel": 32,
    "channel_multiplier": [1, 2],
    "n_res_blocks": 1,
    "attn_strides": [2],
    "attn_heads": 1,
    "use_affine_time": False,
    "dropout": 0.1,
    "fold": 1,
}
TARGET = "diffusion_modules.unet_arch.unet_rosinality.Unet"


def unet_weights(seed, **changes):
    """Weights large enough that attention and every skip count."""
    network = build_network(parse_config({"model": {"unet_rosinality_config": UNET | changes}}).model)
    generator = torch.Generator().manual_seed(seed)
    shapes = {k.removeprefix("diffusion_model."): v.shape for k, v in network.state_dict().items()}
    # the buffer is part of the network, not something trained
    fixed = {k: v for k, v in network.diffusion_model.state_dict().items() if k.endswith("inv_freq")}
    return {k: torch.randn(s, generator=generator) * 0.12 for k, s in shapes.items()} | fixed


def lightning_checkpoint(path, raw, *, ema=None, updates=0, hyper=None, **more):
    """Writes what the original's Trainer.save_checkpoint does: hyper_parameters hold OmegaConf's containers."""
    betas = make_betas("sqrt_linear", 20).float()
    state = {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0)}
    state |= {f"model.diffusion_model.{k}": v for k, v in raw.items()}
    if ema is not None:
        state |= {"model_ema." + f"diffusion_model.{k}".replace(".", ""): v for k, v in ema.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(updates)}
    hyper = {
        "timesteps": 20,
        "parameterization": "eps",
        "conditioning_key": "concat",
        "image_size": 24,
        "dataset": OmegaConf.create({"target": "loader", "params": {"image_dir": "./patches"}}),
        "unet_rosinality_config": OmegaConf.create({"target": TARGET, "params": UNET}),
        "cond": None,
    } | (hyper or {})
    callbacks = {"ModelCheckpoint{'monitor': 'val/loss_simple'}": {"dirpath": pathlib.PurePosixPath("runs")}}
    torch.save(
        {
            "epoch": 3,
            "global_step": 9,
            "pytorch-lightning_version": "1.9.5",
            "state_dict": state,
            "callbacks": callbacks,
            "hparams_name": "kwargs",
            "hparams_type": type(hyper["dataset"]),
            "hyper_parameters": hyper,
        }
        | more,
        path,
    )
    return path


def outputs(model, in_channel=2):
    generator = torch.Generator().manual_seed(7)
    x, t = torch.randn((2, in_channel, 16, 24), generator=generator), torch.tensor([3, 17])
    with torch.no_grad():
        return x, t, model.network.double().diffusion_model(x.double(), t)


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("heads", [1, 4])
def test_a_checkpoint_with_omegaconf_in_it_gives_the_original_networks_output(heads, tmp_path):
    raw = unet_weights(0)
    unet = OmegaConf.create({"target": TARGET, "params": UNET | {"attn_heads": heads}})
    path = lightning_checkpoint(tmp_path / "last.ckpt", raw, hyper={"unet_rosinality_config": unet})
    model = load_model(path)
    x, t, out = outputs(model)
    torch.testing.assert_close(out, network_output(raw, x, t, heads=heads), rtol=0, atol=1e-5)
    assert model.config.model.unet_rosinality_config.attn_heads == heads
    assert model.config.model.image_size == 24
    assert torch.equal(model.process.path.betas, make_betas("sqrt_linear", 20).float().double())


@pytest.mark.parametrize("affine", [False, True])
def test_a_dilated_networks_checkpoint_gives_its_output(affine, tmp_path):
    """Down, middle and up have a dilation each; the shapes of the weights do not tell it."""
    raw = unet_weights(0, use_affine_time=affine)
    target = TARGET.replace("rosinality", "rosinality_dilated")
    unet = OmegaConf.create({"target": target, "params": UNET | {"use_affine_time": affine, "dilation": [1, 3, 2]}})
    path = lightning_checkpoint(tmp_path / "last.ckpt", raw, hyper={"unet_rosinality_config": unet})
    x, t, out = outputs(load_model(path))
    torch.testing.assert_close(out, network_output(raw, x, t, dilation=(1, 3, 2)), rtol=0, atol=1e-5)
    assert (out - network_output(raw, x, t)).abs().max() > 1e-2


def test_heads_given_in_a_configuration_divide_by_the_root_of_all_channels(tmp_path):
    raw = unet_weights(0)
    path = lightning_checkpoint(tmp_path / "last.ckpt", raw)
    config = parse_config({"model": {"unet_rosinality_config": UNET | {"attn_heads": 4}}})
    x, t, out = outputs(load_model(path, config))
    torch.testing.assert_close(out, network_output(raw, x, t, heads=4), rtol=0, atol=1e-5)
    assert config.model.unet_rosinality_config.attn_scale == "head"


def test_the_parameterization_is_the_one_of_the_hyper_parameters(tmp_path):
    path = lightning_checkpoint(tmp_path / "last.ckpt", unet_weights(0), hyper={"parameterization": "x0"})
    model = load_model(path)
    assert model.process.parameterization.name == "x0"
    assert "parameterization x0 from its hyper_parameters" in " ".join(model.notices)


def test_averages_that_were_never_updated_are_left_for_the_weights_as_trained(tmp_path):
    raw, initial = unet_weights(0), unet_weights(1)
    stale = load_model(lightning_checkpoint(tmp_path / "stale.ckpt", raw, ema=initial, updates=0))
    kept = load_model(lightning_checkpoint(tmp_path / "kept.ckpt", raw, ema=initial, updates=1))
    for name, value in stale.network.diffusion_model.state_dict().items():
        assert torch.equal(value, raw[name])
    for name, value in kept.network.diffusion_model.state_dict().items():
        assert torch.equal(value, initial[name])
    assert "never updated (num_updates is 0), so the weights as trained are used" in " ".join(stale.notices)
    assert "never updated" not in " ".join(kept.notices)


def test_objects_of_classes_that_are_not_installed_load_and_their_methods_do_not_run(tmp_path, monkeypatch):
    ran = []
    module = types.ModuleType("diffusion_modules.settings")

    class Settings:
        def __setstate__(self, state):
            ran.append(state)

    Settings.__module__, Settings.__qualname__ = module.__name__, "Settings"
    module.Settings = Settings
    settings = Settings()
    settings.depth = 3
    monkeypatch.setitem(sys.modules, "diffusion_modules", types.ModuleType("diffusion_modules"))
    with monkeypatch.context() as installed:
        installed.setitem(sys.modules, module.__name__, module)
        path = lightning_checkpoint(tmp_path / "last.ckpt", unet_weights(0), hyper={"settings": settings})
        load_model(path)  # also while the class could be found
    assert load_model(path).config.model.unet_rosinality_config.channel == 32
    assert ran == []


class Calls:
    """Pickles as a call of a function, as hostile files do."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {trap}",), f"{os.system.__module__}.system"),
        (eval, ("open('{trap}', 'w')",), "builtins.eval"),
        (getattr, ("", "join"), "builtins.getattr"),
        (torch.load, ("{trap}",), "torch.serialization.load"),
        (torch.hub.load, ("{trap}", "x"), "torch.hub.load"),
        (os.makedirs, ("{trap}",), "os.makedirs"),
    ],
)
@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict"])
def test_a_file_that_calls_a_function_is_refused_by_name(function, arguments, name, place, tmp_path):
    trap = tmp_path / "trap"
    hostile = Calls(function, *(text.format(trap=trap) for text in arguments))
    path = tmp_path / "last.ckpt"
    lightning_checkpoint(path, unet_weights(0), **({} if place == "hyper_parameters" else {place: {"x": hostile}}))
    if place == "hyper_parameters":
        lightning_checkpoint(path, unet_weights(0), hyper={"x": hostile})
    message = refusal(path)
    assert f"(it names {name})" in message
    assert not trap.exists()


def test_an_object_among_the_weights_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    state = {f"model.diffusion_model.{k}": v for k, v in unet_weights(0).items()}
    lightning_checkpoint(path, {}, state_dict=state | {"extra": OmegaConf.create({"a": 1})})
    assert "holds no state_dict of tensors" in refusal(path)


def test_a_container_that_holds_itself_ends(tmp_path):
    circle = []
    circle.append(circle)
    path = lightning_checkpoint(tmp_path / "last.ckpt", unet_weights(0), hyper={"circle": circle})
    assert load_model(path).config.model.image_size == 24


def test_files_written_before_torch_1_6_load_when_plain_and_are_refused_otherwise(tmp_path):
    raw = unet_weights(0)
    path = lightning_checkpoint(tmp_path / "new.ckpt", raw)
    checkpoint = read_ckpt(path)
    old = tmp_path / "old.ckpt"
    torch.save({"state_dict": checkpoint["state_dict"]}, old, _use_new_zipfile_serialization=False)
    x, t, out = outputs(load_model(old))
    torch.testing.assert_close(out, network_output(raw, x, t), rtol=0, atol=1e-5)
    torch.save(
        {"state_dict": checkpoint["state_dict"], "hyper_parameters": OmegaConf.create({"a": 1})},
        old,
        _use_new_zipfile_serialization=False,
    )
    assert "since version 1.6" in refusal(old)
