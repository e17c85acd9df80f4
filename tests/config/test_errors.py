"""Every mistake in a configuration file gives one line: file, field, what was found, what was expected."""

import sys
from pathlib import Path

import pytest

from cdm4mi.config import load_config, load_preset, parse_config
from cdm4mi.errors import UserError

EXPERIMENT = (Path(__file__).parents[1] / "support" / "original_experiment.yaml").read_text()


def refusal(path, overrides=()):
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.fixture
def refused(tmp_path):
    """The message about a file with this text, without the folder."""

    def write_and_load(text):
        path = tmp_path / "exp.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        message = refusal(path)
        assert message.startswith(str(path))
        return message.replace(str(path), "exp.yaml", 1)

    return write_and_load


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timesteps: 1000", "timesteps: 0", "exp.yaml: model.params.timesteps: found 0, expected at least 2"),
        (
            "timesteps: 1000",
            "tmesteps: 1000",
            "exp.yaml: unknown key 'model.params.tmesteps'; the nearest known key is 'timesteps'",
        ),
        ("batch_size: 16", "batch_size: 16\n    batch_size: 8", "exp.yaml: line 12: duplicate key 'batch_size'"),
        (
            "batch_size: 16",
            "batch_size: many",
            "exp.yaml: model.params.batch_size: found 'many', expected a whole number",
        ),
        ("batch_size: 16", "batch_size: '16'", "model.params.batch_size: found '16', expected a whole number"),
        ("batch_size: 16", "batch_size: 1.5", "model.params.batch_size: found 1.5, expected a whole number"),
        ("batch_size: 16", "batch_size: true", "model.params.batch_size: found true, expected a whole number"),
        ("use_ema: true", "use_ema: 1", "model.params.use_ema: found 1, expected true or false"),
        ("linear_end: 0.02", "linear_end: .nan", "model.params.linear_end: found nan, expected a finite number"),
        ('"l2"', "l3", "model.params.loss_type: found 'l3', expected 'l1', 'l2', 'huber' or 'log_l2'"),
        ("gaussian", "dust", "model.params.dataset.params.noise_type: found 'dust', expected 'gaussian'"),
        ("load_brain_hdf5", "load_brain", "dataloader.load_brain', expected one of: diffusion_modules"),
        ("ConditionDDPM", "DDPM", "model.target: found 'models.ddpm_conditioned.DDPM', expected one of: models."),
        (
            "unet_rosinality.Unet",
            "unet.Unet",
            "unet_rosinality_config.target: found 'diffusion_modules.unet_arch.unet.U",
        ),
        ("channel: 64", "chanel: 64", "unet_rosinality_config.params.chanel'; the nearest known key is 'channel'"),
        ("channel: 64", "channel: 60", "unet_rosinality_config.params.channel: found 60, expected a multiple of 8"),
        ("[1,2,4]", "[1,0,4]", "unet_rosinality_config.params.channel_multiplier[1]: found 0, expected at least 1"),
        ("variance: 0.01", "varience: 0.01", "dataset.params.varience'; the nearest known key is 'variance'"),
        (
            "  params:\n    dataset",
            "  parms:\n    dataset",
            "unknown key 'model.parms'; the nearest known key is 'params'",
        ),
        ("    linear_start", "\tlinear_start", "exp.yaml: line 7: found a tab, expected spaces"),
        ("image_size: &IMG_SIZE 64", "image_size: *IMG_SIZE", "exp.yaml: line 9: not YAML: "),
        ("  target: models.ddpm_conditioned.ConditionDDPM\n", "", "model.target: missing, expected one of: models."),
    ],
)
def test_a_mistake_in_an_experiment_file_is_named_as_the_file_has_it(refused, old, new, message):
    assert EXPERIMENT.count(old) >= 1
    assert message in refused(EXPERIMENT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {timesteps: 0}", "exp.yaml: model.timesteps: found 0, expected at least 2"),
        ("training: {batchsize: 2}", "unknown key 'training.batchsize'; the nearest known key is 'batch_size'"),
        ("model: {batch_size: 2}", "unknown key 'model.batch_size'; the nearest known key is 'training.batch_size'"),
        ("model: {}\nbatch_size: 2", "unknown key 'batch_size'; the nearest known key is 'training.batch_size'"),
        (
            "model: {unet_rosinality_config: {a: 1}}",
            "unknown key 'model.unet_rosinality_config.a'; known keys: in_chan",
        ),
        ("sampling: {steps: 3}\nsampling: {steps: 4}", "exp.yaml: line 2: duplicate key 'sampling'"),
        ("model: 3", "exp.yaml: model: found 3, expected a mapping of keys"),
        ("data: {window: [0]}", "data.window: found [0], expected a list of at least 2"),
        ("data: {noise: {variance: [0, -1]}}", "data.noise.variance[1]: found -1, expected at least 0"),
        ("data: {noise: {variance: [0.2, 0.1]}}", "data.noise.variance: found [0.2, 0.1], expected the least first"),
        ("data: {noise: 3}", "exp.yaml: data.noise: found 3, expected a mapping of keys"),
        (
            "data: {noise: {type: 3}}",
            "exp.yaml: data.noise.type: found 3, expected 'gaussian', 'coloured', 'downsampled',",
        ),
        (
            "data: {noise: {type: rice}}",
            "exp.yaml: data.noise.type: found 'rice', expected 'gaussian', 'coloured', 'downsampled',",
        ),
        (
            "data: {noise: {type: rician, variance: 0.1}}",
            "exp.yaml: unknown key 'data.noise.variance' of type rician; known keys: type, percent, variation",
        ),
        (
            "data: {noise: {type: rician, precent: 4}}",
            "unknown key 'data.noise.precent' of type rician; the nearest known key is 'percent'",
        ),
        ("data: {noise: {batch_size: 4}}", "of type gaussian; the nearest known key is 'training.batch_size'"),
        ("data: {noise: {type: rician, percent: -2}}", "exp.yaml: data.noise.percent: found -2, expected at least 0"),
        ("data: {noise: {type: pet, count_fraction: 0}}", "data.noise.count_fraction: found 0, expected more than 0"),
        ("data: {noise: {type: low_dose_ct, dose: 1, target_hu: 9}}", "data.noise: found dose and target_hu, expected"),
        ("data: {noise: {variance: 0.1, percent: 3}}", "exp.yaml: data.noise: found variance and percent, expected on"),
        ("data: {noise: {type: composition}}", "exp.yaml: data.noise.parts: missing"),
        ("data: {noise: {type: composition, parts: []}}", "data.noise.parts: found [], expected a list of at least 1"),
        (
            "data: {noise: {type: composition, parts: [{type: rician}, {type: rician, percnt: 3}]}}",
            "unknown key 'data.noise.parts[1].percnt' of type rician; the nearest known key is 'percent'",
        ),
        (
            "data: {noise: {type: composition, parts: [{type: rician, percent: [1, -2]}]}}",
            "exp.yaml: data.noise.parts[0].percent[1]: found -2, expected at least 0",
        ),
        (
            "data: {noise: {type: composition, parts: [{type: rice}]}}",
            "exp.yaml: data.noise.parts[0].type: found 'rice', expected 'gaussian'",
        ),
        ("data: {paths: [1]}", "data.paths[0]: found 1, expected text (in quotes if it looks like a number)"),
        ("model: {beta_schedule: custom}", "exp.yaml: model: beta_schedule custom needs betas, found none"),
        (
            "training: {neighbour_std: 0.1, min_snr_gamma: 5}",
            "exp.yaml: min_snr_gamma and neighbour_std are given, expected one of them",
        ),
        (
            "model: {conditioning_key: none}\ntraining: {neighbour_std: 0.1}",
            "exp.yaml: neighbour_std is given with conditioning_key none, expected a condition",
        ),
        ("seed: 99999999999999999999999999", "seed: found 99999999999999999999999999, expected at most 9.22337e+18"),
        ("training: {betas: [0.9, 1.5]}", "exp.yaml: training.betas[1]: found 1.5, expected less than 1"),
        ("training: {betas: [0.9, 1.0]}", "exp.yaml: training.betas[1]: found 1.0, expected less than 1"),
        ("training: {learning_rate: 1.0e+300}", ", expected at most 1e+30"),
        ("training: {weight_decay: 1.0e+300}", ", expected at most 1e+06"),
        ("data: {percentiles: [-5, 99]}", "exp.yaml: data.percentiles[0]: found -5, expected at least 0"),
        ("data: {percentiles: [-5, 200]}", "data.percentiles[0]: found -5, expected at least 0"),
        ("data: {percentiles: [0, 200]}", "exp.yaml: data.percentiles[1]: found 200, expected at most 100"),
        ("data: {percentiles: [50, 50]}", "data.percentiles: found [50.0, 50.0], expected the first below the second"),
        (
            "model: {parameterization: precond}\ndata: {noise: {variance: 0}}",
            "exp.yaml: data.noise has a standard deviation of 0 with parameterization precond, expected more",
        ),
        (
            "data: {noise: {variance: [0, 0]}}\ntraining: {neighbour_std: 0.1}",
            "exp.yaml: data.noise has a standard deviation of 0 with neighbour_std, expected more",
        ),
        ("timestep: 3", "exp.yaml: unknown key 'timestep'; the nearest known key is 'timesteps'"),
        ("trainin: {seed: 3}", "exp.yaml: unknown key 'trainin'; the nearest known key is 'training'"),
        ("1: 2", "exp.yaml: found the key 1, expected keys that are text"),
        ("seed: ???", "exp.yaml: seed: found ???, expected a value"),
        ("name: !!binary aGk=", "exp.yaml: name: found a bytes, expected a number, text,"),
        ("name: !!python/object:os.system x", "exp.yaml: not YAML: "),
        ("a: &x [*x]", "exp.yaml: "),
        ("[" * 3000 + "]" * 3000, "exp.yaml: cannot be read as YAML: "),
        ("seed: 1\n---\nseed: 2", "exp.yaml: line 2: not YAML: "),
        ("", "exp.yaml: the file is empty, expected a mapping of keys to values"),
        ("# nothing\n", "exp.yaml: the file is empty, expected a mapping of keys to values"),
        ("hello", "exp.yaml: found 'hello' at the top, expected a mapping of keys to values"),
        ("- 1\n- 2\n", "exp.yaml: found [1, 2] at the top, expected a mapping of keys to values"),
        (b"\x89PNG\r\n\x1a\n", "exp.yaml: found a binary file, expected YAML text in UTF-8"),
        (b"a: \x00\x01", "exp.yaml: not YAML text: "),
        (b"a" * 2_000_000, "exp.yaml: found 2000000 bytes, expected a YAML file of at most "),
    ],
)
def test_a_mistake_in_any_other_file_gives_one_line(refused, text, message):
    assert message in refused(text)


def test_of_several_mistakes_the_first_is_told_and_the_others_counted(refused):
    message = refused("model: {timesteps: 0, image_size: -1}\ntraining: {batch_size: x}")
    assert message == "exp.yaml: model.image_size: found -1, expected at least 1 (and 2 more wrong)"


@pytest.mark.parametrize(
    "text", ["name: ${oc.env:SECRET}", "name: ${seed}", "data: {paths: [${oc.env:SECRET}]}", "name: ${"]
)
def test_an_interpolation_is_refused_and_never_followed(refused, text, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    message = refused(text)
    assert "interpolations are never followed" in message
    assert "hunter2" not in message
    with pytest.raises(UserError, match="interpolations are never followed"):
        parse_config({}, ["name=${oc.env:SECRET}"])


def test_a_target_is_never_imported(tmp_path, monkeypatch, refused):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(EXPERIMENT.replace("models.ddpm_conditioned.ConditionDDPM", "trap.ConditionDDPM"))
    assert "trap" not in sys.modules


def test_a_missing_file_lists_the_presets(tmp_path):
    assert "none.yaml: no such file, expected a YAML file or one of the presets: " in refusal(tmp_path / "none.yaml")
    assert "mission" in refusal("missing")
    assert "found a folder, expected a YAML file" in refusal(tmp_path)
    with pytest.raises(UserError, match=r"preset 'missin' is unknown, expected one of: .*mission"):
        load_preset("missin")


def test_a_preset_name_is_never_a_path(tmp_path):
    with pytest.raises(UserError, match="is unknown"):
        load_preset("../presets/mission")
