"""Bad days of a training: a folder made for nothing, no memory, files that are damaged or made to harm."""

import json

import pytest
import torch
import training_runs as runs
from safetensors.torch import load_file, save_file

from cdm4mi.errors import UserError
from cdm4mi.locks import sole_run
from cdm4mi.models.checkpoint import load_model, save_model
from cdm4mi.training.limits import memory_errors
from cdm4mi.training.run import train


def test_a_folder_that_was_made_for_nothing_is_taken_away(tmp_path):
    with pytest.raises(UserError, match="fp16"), sole_run(tmp_path / "a" / "run", "train"):
        raise UserError("fp16")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_no_memory_is_one_line_that_names_the_keys(error, tmp_path):
    message = r"training\.batch_size 2, model\.image_size 16 and .*channel 32: lower"
    with pytest.raises(UserError, match=message), memory_errors(runs.tiny_config(tmp_path)):
        raise error


def test_other_errors_are_not_taken_for_it(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(runs.tiny_config(tmp_path)):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("channel", [32768, 2**25])
def test_a_network_beyond_all_memory_is_refused_before_it_is_made(channel, tmp_path):
    config = runs.tiny_config(runs.patch_folder(tmp_path / "patches"), model={"unet": {"channel": channel}})
    with pytest.raises(UserError, match="channel") as error:
        train(config, tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"log_every": 1}, r"train/loss is (nan|inf)"),
        ({"checkpoint_every": 2}, r"model\..* is not finite"),
        ({"val_every": 2}, r"val/loss is (nan|inf)"),
    ],
)
def test_a_training_that_diverges_ends_with_one_line_and_keeps_its_checkpoints(keys, found, tmp_path):
    patches, out = runs.patch_folder(tmp_path / "patches"), tmp_path / "run"
    usual = {"warmup": 0, "lr_decay": "constant"}
    train(runs.tiny_config(patches, max_tsteps=2, **usual), out, progress=False)
    before = {file: file.read_bytes() for file in (out / "checkpoints").iterdir()}
    rare = {"log_every": 100, "checkpoint_every": 100, "val_every": 100}
    config = runs.tiny_config(patches, max_tsteps=100, learning_rate=1e30, **usual, **(rare | keys))
    with pytest.raises(UserError, match=f"^the training diverged: {found} at step 4, .* a lower .*learning_rate"):
        train(config, out, resume=True, progress=False)
    assert {file: file.read_bytes() for file in (out / "checkpoints").iterdir()} == before


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_that_is_accepted_trains(seed, tmp_path):
    config = runs.tiny_config(runs.patch_folder(tmp_path / "patches"), max_tsteps=1)
    config.seed = seed
    train(config, tmp_path / "run", progress=False)
    assert runs.checkpoint(tmp_path / "run")["global_step"] == 1


def changed_metadata(tiny, path, change):
    """The model as safetensors, its configuration changed by hand."""
    save_model(tiny, path)
    config = tiny.config.model_dump(mode="json")
    change(config["model"]["unet_rosinality_config"])
    save_file(load_file(path), path, {"format": "cdm4mi", "config": json.dumps(config), "about": "{}"})
    return path


@pytest.mark.parametrize(
    "change", [{"channel": 2**20}, {"channel": 2**40}, {"n_res_blocks": 10**9}, {"channel_multiplier": [1] * 10**4}]
)
def test_a_file_that_claims_a_huge_network_takes_no_memory(tiny, change, tmp_path):
    file = changed_metadata(tiny, tmp_path / "model.safetensors", lambda unet: unet.update(change))
    with pytest.raises(UserError, match=r"model\.safetensors: ") as error:
        load_model(file)
    assert "\n" not in str(error.value)


def test_metadata_that_is_nested_deeply_is_one_line(tiny, tmp_path):
    file = tmp_path / "model.safetensors"
    save_model(tiny, file)
    save_file(load_file(file), file, {"format": "cdm4mi", "config": "[" * 200_000, "about": "{}"})
    with pytest.raises(UserError, match="metadata config is not a JSON object"):
        load_model(file)
