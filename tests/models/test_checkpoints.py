"""Model files: ours, as safetensors, and the original work's; whatever else is given is one clear line, never code."""

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from real_scans import needs_reference
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cdm4mi.config import parse_config
from cdm4mi.config.portable import portable
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.diffusion.schedules import make_betas
from cdm4mi.errors import UserError
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.models import build_network
from cdm4mi.models.checkpoint import load_model, save_model
from cdm4mi.models.ckpt_file import read_ckpt
from experiments.shared import REFERENCE

UNET = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [2], "dropout": 0.1}


def failure(path, config=None):
    with pytest.raises(UserError) as caught:
        load_model(path, config)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def one_call(model, side=32):
    y = np.random.default_rng(0).uniform(-1, 1, (1, side, side)).astype(np.float32)
    return SliceRestorer(model, SamplingConfig(estimate="mean", tile=side)).restore(y, 0.2)


# Ours


def own_ckpt(trained_run):
    return torch.load(trained_run / "checkpoints" / "last.ckpt", weights_only=True)


def saved(tmp_path, checkpoint, name="changed.ckpt"):
    torch.save(checkpoint, tmp_path / name)
    return tmp_path / name


def test_averaged_weights_are_the_ones_that_restore(trained_run):
    model = load_model(trained_run / "checkpoints" / "last.ckpt")
    checkpoint = own_ckpt(trained_run)
    moved = 0
    for name, value in model.network.named_parameters():
        assert torch.equal(value, checkpoint["ema"]["weights"][name])
        moved += not torch.equal(value, checkpoint["state_dict"]["model." + name])
    assert moved > 10
    assert model.notices == []
    assert model.about.step == 60
    assert not model.network.training


def test_without_averaged_weights_the_raw_ones_are_used_and_it_is_said(trained_run, tmp_path):
    checkpoint = own_ckpt(trained_run)
    del checkpoint["ema"]
    model = load_model(saved(tmp_path, checkpoint))
    assert all(torch.equal(v, checkpoint["state_dict"]["model." + k]) for k, v in model.network.named_parameters())
    assert "no averaged weights" in model.notices[0]


def test_a_runs_folder_stands_for_its_best_checkpoint(trained_run, tmp_path):
    assert load_model(trained_run).weight_hash == load_model(trained_run / "checkpoints" / "best.ckpt").weight_hash
    assert load_model(str(trained_run)).name == "best.ckpt"
    assert "a folder without checkpoints/best.ckpt" in failure(tmp_path)


def test_safetensors_round_trip_in_half_precision(tiny, tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(tiny, path, card="what it is")
    again = load_model(path)
    assert portable(again.config) == portable(tiny.config)
    assert str(Path(tiny.config.data.paths[0]).parent).encode() not in path.read_bytes()
    assert again.about == tiny.about.model_copy(update={"card": "what it is"})
    for (name, value), other in zip(
        tiny.network.state_dict().items(), again.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, rtol=2**-11, atol=2**-24, msg=name)
    np.testing.assert_allclose(one_call(again), one_call(tiny), rtol=0, atol=5e-3)
    assert path.stat().st_size < 2.2 * sum(v.numel() for v in tiny.network.state_dict().values()) + 2e4
    assert {v.dtype for v in load_file(path).values()} == {torch.float16}
    assert os.listdir(tmp_path) == [path.name]


def test_safetensors_in_full_precision_are_the_same_model_in_another_file(tiny, tmp_path):
    save_model(tiny, tmp_path / "full.safetensors", half=False)
    again = load_model(tmp_path / "full.safetensors")
    assert again.weight_hash == tiny.weight_hash
    np.testing.assert_array_equal(one_call(again), one_call(tiny))


def test_saved_models_can_be_read_by_whom_the_umask_lets(tiny, tmp_path):
    before = os.umask(0o022)
    try:
        save_model(tiny, tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o644


# The original work's


def original_ckpt(path, weights, betas=None, ema=None, prefix="model.diffusion_model."):
    """A Lightning checkpoint as the original code writes it: EMA names without dots, schedule tables as buffers."""
    betas = make_betas("sqrt_linear", 20).float() if betas is None else betas
    abar = torch.cumprod(1 - betas, 0)
    state = {"betas": betas, "alphas_cumprod": abar, "sqrt_alphas_cumprod": abar.sqrt(), "logvar": torch.zeros(20)}
    state |= {prefix + k: v for k, v in weights.items()}
    if ema is not None:
        state |= {"model_ema." + ("diffusion_model." + k).replace(".", ""): v for k, v in ema.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int)}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 9, "pytorch-lightning_version": "1.4.2"}, path)
    return path


def unet_weights(seed=0, **changes):
    torch.manual_seed(seed)
    network = build_network(parse_config({"model": {"unet_rosinality_config": UNET | changes}}).model)
    return {k.removeprefix("diffusion_model."): torch.randn_like(v) * 0.05 for k, v in network.state_dict().items()}


def test_original_checkpoint_loads_with_its_averaged_weights_and_its_own_schedule(tmp_path):
    raw, averaged = unet_weights(0), unet_weights(1)
    model = load_model(original_ckpt(tmp_path / "last.ckpt", raw, ema=averaged))
    for name, value in model.network.diffusion_model.state_dict().items():
        assert torch.equal(value, averaged[name])
    assert model.process.parameterization.name == "eps"
    assert model.config.model.conditioning_key == "concat"
    stored = make_betas("sqrt_linear", 20).float().double()
    assert torch.equal(model.process.path.betas, stored)
    assert not torch.allclose(model.process.path.betas, make_betas("linear", 20), rtol=0.05, atol=0)
    said = " ".join(model.notices)
    assert "the checkpoint's own betas" in said
    assert "sqrt_linear" in said
    assert "(EMA)" in said
    y = np.zeros((1, 24, 24), np.float32)
    sampling = SamplingConfig(estimate="sample", steps=3)
    samples = [SliceRestorer(model, sampling).restore(y, 0.1, seed=s) for s in (0, 0, 1)]
    assert np.isfinite(samples[0]).all()
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.allclose(samples[0], samples[2])


def test_original_checkpoint_without_averages_has_the_weights_as_trained(tmp_path):
    raw = unet_weights(0)
    model = load_model(original_ckpt(tmp_path / "last.ckpt", raw))
    assert all(torch.equal(v, raw[k]) for k, v in model.network.diffusion_model.state_dict().items())
    assert "EMA" not in " ".join(model.notices)


@needs_reference
@pytest.mark.parametrize("name", ["unet_plain", "unet_affine_fold2"])
def test_network_of_an_original_checkpoint_is_told_from_its_weights(name, tmp_path):
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as f:
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        arguments = json.loads(f.metadata()["config"])
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    model = load_model(original_ckpt(tmp_path / "x.ckpt", weights))
    found = model.config.model.unet_rosinality_config.model_dump()
    assert {k: found[k] for k in arguments} == arguments
    with torch.no_grad():
        out = model.network.diffusion_model(tensors["x"].float(), tensors["t"])
    torch.testing.assert_close(out, tensors["out"].float(), rtol=0, atol=1e-5)


def test_unusual_networks_load_with_their_experiment_file_which_stays_as_it_is(tmp_path):
    weights = unet_weights(0, attn_heads=4)
    path = original_ckpt(tmp_path / "heads.ckpt", weights)
    unet = UNET | {"attn_heads": 4, "attn_scale": "channel"}
    config = parse_config({"model": {"parameterization": "v", "unet_rosinality_config": unet}})
    before = config.model_copy(deep=True)
    model = load_model(path, config)
    assert model.process.parameterization.name == "v"
    assert model.config.model.unet_rosinality_config.attn_heads == 4
    assert model.process.path.timesteps == 20
    assert config == before
    custom = parse_config(
        {"model": {"beta_schedule": "custom", "betas": [0.1] * 4, "timesteps": 4, "unet_rosinality_config": unet}}
    )
    assert load_model(path, custom).process.path.timesteps == 20
    assert not np.allclose(one_call_v(model), one_call_v(load_model(path)))


def one_call_v(model):
    with torch.no_grad():
        return model.network.diffusion_model(torch.ones(1, 2, 16, 16), torch.tensor([5])).numpy()


# Everything else


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("place", ["top", "state_dict", "cdm4mi", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_nothing_is_run(place, tmp_path, trained_run):
    trap, path = tmp_path / "trap", tmp_path / "model.ckpt"
    checkpoint = own_ckpt(trained_run)
    if place == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}, "x": Malicious(trap)}))
    else:
        (checkpoint if place == "top" else checkpoint[place])["x"] = Malicious(trap)
        torch.save(checkpoint, path)
    message = failure(path)
    assert "not a checkpoint of plain tensors" in message
    assert place == "pickle" or re.search(r"\(it names \w*\.open\)", message)
    assert not trap.exists()


def test_files_that_are_no_models(tmp_path):
    for ending in (".ckpt", ".safetensors"):
        path = tmp_path / f"x{ending}"
        assert "no such file" in failure(path)
        for content in (b"", b"this is a text file\n" * 9, b"\x89PNG\r\n\x1a\n" + bytes(300), b"\xff" * 12):
            path.write_bytes(content)
            assert re.search("not a (checkpoint|readable safetensors file)", failure(path))
    torch.save([1, 2], tmp_path / "x.ckpt")
    assert "holds no state_dict" in failure(tmp_path / "x.ckpt")
    torch.save({"state_dict": {"model.x": 3}}, tmp_path / "x.ckpt")
    assert "holds no state_dict of tensors" in failure(tmp_path / "x.ckpt")
    torch.save({"state_dict": {"encoder.weight": torch.zeros(3)}}, tmp_path / "x.ckpt")
    assert "no weights named model.diffusion_model.*" in failure(tmp_path / "x.ckpt")
    torch.save({"state_dict": {"model.diffusion_model.fc.weight": torch.zeros(3)}}, tmp_path / "x.ckpt")
    assert "not those of the Rosinality UNet" in failure(tmp_path / "x.ckpt")
    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert "holds no cdm4mi configuration" in failure(tmp_path / "x.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors", {"config": "{broken"})
    assert "metadata config is not a JSON object" in failure(tmp_path / "x.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors", {"config": '{"modle": {}}'})
    assert "modle" in failure(tmp_path / "x.safetensors")


def test_weights_that_do_not_fit_are_named(trained_run, tmp_path):
    def changed(change):
        checkpoint = own_ckpt(trained_run)
        del checkpoint["ema"]
        change(checkpoint)
        return failure(saved(tmp_path, checkpoint))

    name = "model.diffusion_model.down.0.weight"
    assert "no weight diffusion_model.down.0.weight" in changed(lambda c: c["state_dict"].pop(name))
    assert "unexpected weight extra" in changed(lambda c: c["state_dict"].update({"model.extra": torch.zeros(1)}))
    assert "has shape (2, 3), expected (32, 12, 3, 3)" in changed(
        lambda c: c["state_dict"].update({name: torch.zeros(2, 3)})
    )
    assert "not finite" in changed(lambda c: c["state_dict"][name][0, 0].fill_(float("nan")))
    assert "betas outside (0, 1)" in failure(
        original_ckpt(tmp_path / "b.ckpt", unet_weights(), betas=torch.linspace(0.0, 0.5, 20))
    )


def test_damage_anywhere_is_one_line(trained_run, tmp_path):
    rng = np.random.default_rng(0)
    whole = (trained_run / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "damaged.ckpt"
    for cut in rng.integers(1, len(whole) - 1, 8):
        path.write_bytes(whole[:cut])
        assert re.search(r"damaged\.ckpt: is (cut or damaged|not a checkpoint), expected", failure(path))
    # the pickle is at the start: what is changed there may still be a file, but never a crash
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.integers(60, 6000)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read_ckpt(path)
        except UserError as error:
            assert "\n" not in str(error)


def test_weights_that_were_damaged_on_the_disk_are_refused(trained_run, tmp_path):
    content = bytearray((trained_run / "checkpoints" / "best.ckpt").read_bytes())
    path = tmp_path / "damaged.ckpt"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    start = largest.header_offset + 4096
    content[start : start + 4096] = b"\x3f" * 4096
    path.write_bytes(content)
    assert all(torch.isfinite(v).all() for v in torch.load(path, weights_only=True)["state_dict"].values())
    assert failure(path) == f"{path}: is cut or damaged, expected a whole checkpoint"


FIRST = "diffusion_model.down.0.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(cdm4mi=3), "cdm4mi: found a whole number, expected a mapping"),
        (lambda c: c["cdm4mi"].pop("config"), "cdm4mi.config: missing, expected a mapping"),
        (lambda c: c["cdm4mi"].update(config=[1]), "cdm4mi.config: found a list, expected a mapping"),
        (lambda c: c["cdm4mi"].update(format=2), "format: found 2, which a newer version of cdm4mi wrote"),
        (lambda c: c["cdm4mi"].update(format=2, new=1), "format: found 2, which a newer version of cdm4mi wrote"),
        (lambda c: c.update(global_step="x"), "global_step: found a text, expected a whole number"),
        (lambda c: c.update(global_step=-5), "global_step: found -5, expected at least 0"),
        (lambda c: c.update(ema=None), "ema: found none, expected a mapping"),
        (lambda c: c.update(ema="x"), "ema: found a text, expected a mapping"),
        (lambda c: c["ema"].pop("weights"), "ema.weights: missing, expected a mapping"),
        (lambda c: c["ema"].update(weights=[1]), "ema.weights: found a list, expected a mapping"),
        (lambda c: c["ema"]["weights"].update(a=1), "ema.weights: a: found a whole number, expected a tensor"),
        (lambda c: c["ema"]["weights"].update({5: torch.ones(1)}), "ema.weights: found a whole number (5) as a key"),
        (lambda c: c["state_dict"].update({5: torch.ones(1)}), "state_dict: found a whole number (5) as a key"),
        (
            lambda c: c["ema"]["weights"].update({FIRST: torch.zeros(3, 3).to_sparse()}),
            f"ema.weights: {FIRST}: found a tensor of layout torch.sparse_coo, expected a dense one",
        ),
        (
            lambda c: c["ema"]["weights"].update({FIRST: c["ema"]["weights"][FIRST].to(torch.complex64)}),
            f"ema.weights: {FIRST}: found numbers of type complex64, expected floating-point numbers",
        ),
        (
            lambda c: (c.pop("ema"), c["state_dict"].update({"model." + FIRST: torch.ones(32, 12, 3, 3).char()})),
            f"{FIRST}: found numbers of type int8, expected floating-point numbers",
        ),
    ],
)
def test_a_part_of_another_kind_is_named(change, words, trained_run, tmp_path):
    checkpoint = own_ckpt(trained_run)
    change(checkpoint)
    path = saved(tmp_path, checkpoint)
    assert failure(path).startswith(f"{path}: {words}")


def test_a_pickle_of_a_newer_protocol_is_one_line_without_a_warning(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": {}}, protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "not a checkpoint of plain tensors" in failure(path)


ABOUT = {"version": "0.1.0", "data": {"patients_train": ["a"], "patients_val": [], "slices_train": 1, "slices_val": 0}}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({**ABOUT, "calibration": {"scale": 1}}, "calibration.settings: Field required"),
        ({**ABOUT, "data": ["a"]}, "data: Input should be"),
        ({**ABOUT, "step": "many"}, "step: Input should be a valid integer"),
        ({**ABOUT, "weight": 1}, "weight: Extra inputs are not permitted"),
        (
            {**ABOUT, "format": 9},
            "format: found 9, which a newer version of cdm4mi wrote (this one knows 1), expected a model",
        ),
    ],
)
def test_what_a_file_says_of_its_model_is_checked(about, words, tiny, tmp_path):
    file, damaged = tmp_path / "model.safetensors", tmp_path / "damaged.safetensors"
    save_model(tiny, file)
    with safe_open(file, "pt") as f:
        metadata = f.metadata()
    assert json.loads(metadata["about"])["format"] == 1
    for target, content in ((file, ABOUT), (damaged, about)):  # that of an earlier version has no format
        save_file(load_file(file), target, metadata | {"about": json.dumps(content)})
    assert load_model(file).about.data.patients_train == ["a"]
    message = failure(damaged)
    assert words in message and message.startswith(f"{damaged}: ")
