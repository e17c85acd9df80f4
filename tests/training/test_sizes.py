"""Sizes that a network cannot take are refused before anything is read."""

import pytest

from cdm4mi.config import load_config
from cdm4mi.config.load import preset_names
from cdm4mi.models import check_sizes
from cdm4mi.training import run

REFUSED = [
    ("precond", ["image_size=33"], "image_size: found 33, expected a multiple of 8, say 32 or 40"),
    ("precond", ["image_size=4"], "image_size: found 4, expected a multiple of 8, say 8"),
    ("precond", ["fold=3"], "image_size: found 64, expected a multiple of 12, say 60 or 72"),
    ("phantom-small", ["image_size=4"], "image_size: found 4, expected at least 8: the coarsest level has one pixel"),
    ("mission", ["attn_strides=[8]"], "attn_strides: found 8, expected some of 1, 2, 4 (channel_mul"),
    ("mission", ["attn_strides=[3,4]"], "attn_strides: found 3, expected some of 1, 2, 4"),
    ("mission", ["channel_multiplier=[1]"], "attn_strides: found 4, expected some of 1 (channel_multiplier has"),
    ("mission", ["attn_heads=5"], "attn_heads: found 5, expected a divisor of 64 channels"),
    ("mission", ["channel=60"], "channel: found 60, expected a multiple of 8"),
    ("mission", ["conditioning_key=crossattn", "in_channel=1", "context_dim=40"], "context_dim 40: expected a m"),
    ("red_cnn", ["image_size=20"], "image_size: found 20, expected at least 21 for network red_cnn"),
    ("mission", ["times=[1000,3]"], "times: found 1000, expected 0 to 999"),
    ("mission", ["mean_from=network", "path=bridge", "bridge_noise=0", "conditioning_key=none", "in_channel=1",
                 "parameterization=x0", "solver=dpmpp_2m"], "found dpmpp_2m on a bridge that is without noise"),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "overrides", "said"), REFUSED, ids=str)
def test_it_is_one_line_before_the_data_are_read(preset, overrides, said, command, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "load_patients", lambda *_: pytest.fail("the data were read"))
    monkeypatch.chdir(tmp_path)
    code, _, err = command("train", preset, *overrides, "--out", tmp_path / "run")
    assert code == 2 and said in err and err.count("\n") == 1
    assert err.startswith((f"error: {preset}: ", "error: command line: "))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["train", "check"])
def test_it_names_the_file(name, command, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {beta_schedule: custom, timesteps: 2, betas: [0.1, 1.2]}\ndata: {paths: [nowhere.nii]}\n")
    code, _, err = command(name, file)
    assert (code, err) == (2, f"error: {file}: betas: found 1.2 at step 1, expected every beta inside (0, 1)\n")


def test_presets_are_of_sizes_that_fit():
    for name in preset_names():
        check_sizes(load_config(name).model)
