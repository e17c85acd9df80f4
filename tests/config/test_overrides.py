"""Overrides ``key=value`` reach the key that is meant, with YAML values, in every layout."""

from pathlib import Path

import pytest

from cdm4mi.config import load_config, parse_config
from cdm4mi.config.fields import find
from cdm4mi.errors import UserError
from cdm4mi.models import build_process
from cdm4mi.models.check import check_sampling

NO_WEIGHTS = "neighbour_std=null"
EXPERIMENT = Path(__file__).parents[1] / "support" / "original_experiment.yaml"


@pytest.mark.parametrize("mapping", [{}, {"model": {"timesteps": 10}}, {"timesteps": 10}])
@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("training.max_tsteps=100", lambda c: c.training.max_tsteps, 100),
        ("max_tsteps=1e05", lambda c: c.training.max_tsteps, 100_000),
        ("channel=32", lambda c: c.model.unet_rosinality_config.channel, 32),
        ("unet_rosinality_config.channel=32", lambda c: c.model.unet_rosinality_config.channel, 32),
        ("unet_rosinality_config={channel: 32}", lambda c: c.model.unet_rosinality_config.channel, 32),
        ("variance=0.05", lambda c: c.data.noise.variance, 0.05),
        ("noise.variance=[0.01,0.2]", lambda c: c.data.noise.variance, [0.01, 0.2]),
        ("channel_multiplier=[1, 2]", lambda c: c.model.unet_rosinality_config.channel_multiplier, [1, 2]),
        ("paths=[/a, /b=c]", lambda c: c.data.paths, ["/a", "/b=c"]),
        ("paths=/data/some scans", lambda c: c.data.paths, ["/data/some scans"]),
        ("use_ema=false", lambda c: c.training.use_ema, False),
        ("tile=null", lambda c: c.sampling.tile, None),
        ("precision=32", lambda c: c.training.precision, "32"),
        ("training.betas=[0.5, 0.9]", lambda c: c.training.betas, [0.5, 0.9]),
        ("name='007'", lambda c: c.name, "007"),
        ("learning_rate=1e-4", lambda c: c.training.learning_rate, 1e-4),
    ],
)
def test_an_override_reaches_its_key_in_the_own_and_the_flat_layout(mapping, override, read, value):
    assert read(parse_config(mapping, [override])) == value


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("image_dir=/x", lambda c: c.data.paths, ["/x"]),
        ("model.params.dataset.params.image_dir=/x", lambda c: c.data.paths, ["/x"]),
        ("data.paths=[/x, /y]", lambda c: c.data.paths, ["/x", "/y"]),
        ("model.params.dataset.params.variance=0.2", lambda c: c.data.noise.variance, 0.2),
        ("model.params.max_tsteps=1e02", lambda c: c.training.max_tsteps, 100),
        ("max_tsteps=20", lambda c: c.training.max_tsteps, 20),
        ("model.image_size=32", lambda c: c.model.image_size, 32),
        ("model.params.image_size=32", lambda c: c.model.image_size, 32),
        ("target_size=32", lambda c: c.data.resize, 32),
        ("target_size=[32, 48]", lambda c: c.data.resize, [48, 32]),
        ("noise_type=pepper", lambda c: c.data.noise.extremes, "pepper"),
        ("num_of_train_samples=5", lambda c: c.data.train_slices, 5),
        ("num_of_val_samples=7", lambda c: c.data.val_patches, 7),
        ("warmup_steps=5", lambda c: c.training.warmup, 5),
        ("gradient_clip_val=0.5", lambda c: c.training.gradient_clip, 0.5),
        ("accumulate_grad_batches=2", lambda c: c.training.accumulate, 2),
        ("model.params.unet_rosinality_config.params.channel=32", lambda c: c.model.unet_rosinality_config.channel, 32),
        (
            "model.params.dataset.target=diffusion_modules.diffusion_utils.dataloader.load_ixi",
            lambda c: c.data.kind,
            "volumes",
        ),
        ("given_betas=[0.1, 0.2]", lambda c: c.model.betas, [0.1, 0.2]),
        ("log_every_t=5", lambda c: c.training.log_every, 50),
        ("kind=phantoms", lambda c: c.data.kind, "phantoms"),
        ("sampling.steps=3", lambda c: c.sampling.steps, 3),
    ],
)
def test_an_experiment_file_takes_its_own_names_and_the_projects(override, read, value):
    assert read(load_config(EXPERIMENT, [override])) == value


def test_an_override_of_one_key_leaves_the_others_as_they_are():
    config = load_config(EXPERIMENT, ["max_tsteps=20", "unet_rosinality_config={dropout: 0}"])
    expected = load_config(EXPERIMENT)
    expected.training.max_tsteps = 20
    expected.model.unet_rosinality_config.dropout = 0.0
    assert config == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ["path=i2sb"],
        ["path=bridge", "bridge_noise=0", "conditioning_key=none", "in_channel=1", "parameterization=v", NO_WEIGHTS],
    ],
)
def test_the_solver_of_a_preset_gives_way_to_one_that_the_path_allows(overrides, caplog):
    config = load_config("precond", overrides)
    check_sampling(config, build_process(config.model))
    assert (config.sampling.solver, config.sampling.spacing) == ("ddim", "trailing")
    assert "sampling.solver dpmpp_2m is for paths with noise: ddim (trailing) in its place" in caplog.text
    config = load_config("precond", [*overrides, "solver=euler", "spacing=linspace"])
    assert (config.sampling.solver, config.sampling.spacing) == ("euler", "linspace")
    assert load_config("precond", [*overrides, "solver=heun"]).sampling.solver == "heun"  # refused by the training


def test_the_solver_of_a_preset_stays_where_the_path_allows_it(caplog):
    for path in ("residual", "bridge"):
        config = load_config("precond", [f"path={path}"])
        check_sampling(config, build_process(config.model))
        assert (config.sampling.solver, config.sampling.spacing) == ("dpmpp_2m", "logsnr")
    assert parse_config({"model": {"path": "i2sb"}, "sampling": {"solver": "heun"}}).sampling.solver == "heun"
    assert not caplog.records


def test_the_last_of_two_overrides_wins():
    assert parse_config({}, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_steps=3", "command line: unknown key 'max_steps'; the nearest known key is 'max_tsteps'"),
        ("training.max_steps=3", "unknown key 'training.max_steps'; the nearest known key is 'training.max_tsteps'"),
        ("max_tsteps", "command line: found 'max_tsteps', expected key=value"),
        ("=3", "command line: found '=3', expected key=value"),
        ("timesteps=0", "command line: timesteps: found 0, expected at least 2"),
        ("timesteps=ten", "command line: timesteps: found 'ten', expected a whole number"),
        ("timesteps=", "command line: timesteps: found null, expected a whole number"),
        ("channel_multiplier=[1", "command line: channel_multiplier: not YAML"),
        ("unet_rosinality_config={fold: 1, fold: 2}", "duplicate key 'fold'"),
        ("name=007", "command line: name: found 7, expected text (in quotes if it looks like a number)"),
        ("variance=[0.1, -1]", "command line: variance[1]: found -1, expected at least 0"),
        ("variance=[0.1]", "command line: variance: found [0.1], expected a list of at least 2"),
        ("variance=much", "command line: variance: found 'much', expected a number or a list"),
        ("model=3", "command line: model: found 3, expected a mapping of keys"),
        ("timesteps.x=3", "unknown key 'timesteps.x'"),
    ],
)
@pytest.mark.parametrize("path", [EXPERIMENT, "mission"])
def test_a_bad_override_gives_one_line_that_names_it(path, override, message):
    with pytest.raises(UserError) as error:
        load_config(path, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_raw_path_names_the_nearest_key_of_the_experiment_file():
    with pytest.raises(UserError, match=r"unknown key 'model.params.dataset.params.image_dr'.*'image_dir'"):
        load_config(EXPERIMENT, ["model.params.dataset.params.image_dr=/x"])


def test_a_bad_value_for_a_raw_path_is_the_command_lines():
    with pytest.raises(UserError, match=r"^command line: model.params.dataset.params.variance: found -1, expected at"):
        load_config(EXPERIMENT, ["model.params.dataset.params={variance: -1}"])


def test_a_name_with_two_places_is_refused_with_both():
    with pytest.raises(UserError, match=r"'steps' is ambiguous, expected one of sampling.steps, training.steps"):
        find("steps", "command line", among=[("sampling", "steps"), ("training", "steps")])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "mapping", [{}, {"data": {"noise": {"type": "gaussian", "variance": [0.1, 0.2]}}}, {"variance": 0.1}]
)
def test_another_type_of_noise_takes_the_place_of_the_file_s_keys(mapping, order):
    noise = parse_config(mapping, ["noise.type=rician", "percent=[2, 8]"][::order]).data.noise
    assert noise.model_dump() == {"type": "rician", "percent": [2, 8], "variation": 0}
    whole = parse_config(mapping, ["noise={type: rician, percent: [2, 8]}"]).data.noise
    assert whole == noise


def test_the_same_type_of_noise_keeps_the_file_s_keys():
    mapping = {"data": {"noise": {"type": "rician", "percent": 3, "variation": 0.5}}}
    noise = parse_config(mapping, ["noise.type=rician", "noise.percent=4"]).data.noise
    assert (noise.percent, noise.variation) == (4, 0.5)
    with pytest.raises(
        UserError, match=r"^command line: unknown key 'noise.variance' of type rician; known keys: type"
    ):
        parse_config(mapping, ["noise.variance=0.1"])


def test_gaussian_noise_is_stated_in_one_way():
    assert parse_config({}, ["noise.sigma_hu=[10, 50]"]).data.noise.variance is None
    assert parse_config({}).data.noise.variance == 0.01
    noise = parse_config({"variance": 0.1}, ["noise={variance: null, percent: 4}"]).data.noise
    assert (noise.variance, noise.percent) == (None, 4)
