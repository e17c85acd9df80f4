"""A trained model in place of a configuration: its settings, other scans, fewer steps, and a run that begins so."""

from __future__ import annotations

import pytest
import training_runs as runs

from cdm4mi.errors import UserError
from cdm4mi.models.checkpoint import load_model
from cdm4mi.planning.fine_tuning import RATE, STEPS
from cdm4mi.planning.settings import settings_of
from cdm4mi.training.run import train


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def trained(patches, tmp_path_factory):
    """The last checkpoint of a short run."""
    return train(runs.tiny_config(patches), tmp_path_factory.mktemp("run"), progress=False)


def test_the_settings_are_the_models_but_for_scans_and_steps(trained):
    model, config = load_model(trained).config, settings_of(str(trained), ["paths=/elsewhere"])
    assert config.model == model.model
    assert config.data.noise == model.data.noise
    assert config.data.paths == ["/elsewhere"]
    assert config.training.initial_weights == str(trained)
    assert config.training.learning_rate == pytest.approx(RATE * model.training.learning_rate)
    assert (config.training.max_tsteps, config.training.lr_decay) == (STEPS, "cosine")
    assert config.name == f"{model.name}-fine-tuned"


def test_a_runs_folder_is_the_model_that_it_stands_for(trained, tmp_path):
    run = trained.parents[1]
    config = settings_of(str(run))
    assert config.training.initial_weights == str(run)
    assert config.model == load_model(run).config.model
    with pytest.raises(UserError, match=r"a folder without a store's manifest or checkpoints/best\.ckpt, expected a"):
        settings_of(str(tmp_path))


def test_the_shipped_model_is_named_so_and_needs_scans():
    assert settings_of("shipped").model == load_model().config.model
    assert not settings_of("shipped").data.paths


def test_the_run_begins_with_its_weights(trained, patches, tmp_path):
    config = settings_of(str(trained), [f"paths={patches}", "max_tsteps=1", "learning_rate=1e-12", "warmup=0"])
    last = train(config, tmp_path, progress=False)
    assert load_model(last).about.initial_weights == load_model(trained).weight_hash


def test_a_missing_model_and_a_wrong_key_are_named(trained, tmp_path):
    with pytest.raises(UserError, match=r"gone\.ckpt: no such file, expected a checkpoint"):
        settings_of(str(tmp_path / "gone.ckpt"))
    with pytest.raises(UserError, match="max_tsteps: found 0, expected at least 1"):
        settings_of(str(trained), ["max_tsteps=0"])
