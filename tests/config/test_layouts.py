"""The three layouts of a configuration file, as users have them, load to the same typed configuration."""

import logging
from pathlib import Path

import pytest

from cdm4mi.config import Config, load_config, load_preset, parse_config, preset_names
from cdm4mi.config.fields import table
from cdm4mi.errors import UserError

EXPERIMENT = Path(__file__).parents[1] / "support" / "original_experiment.yaml"

# The shape of the original work's IXI experiment: aliases, a tag, a target size, few keys.
IXI = """
model:
  target: models.ddpm_conditioned.ConditionDDPM
  params:
    dataset:
      target: diffusion_modules.diffusion_utils.dataloader.load_ixi
      params:
        image_dir: ./ixi
        noise_type: gaussian
        batch_size: &BATCH_SIZE 8
        target_size: !<tag:yaml.org,2002:seq> [128, 128]
    batch_size: *BATCH_SIZE
    beta_schedule: "sqrt_linear"
    loss_type: huber
    warmup_steps: 5000
    unet_rosinality_config:
      target: diffusion_modules.unet_arch.unet_rosinality.Unet
      params: {channel: 32, channel_multiplier: [1, 2, 4,]}
"""

FLAT = """
timesteps: 1000
max_tsteps: 1e05
learning_rate: 2.0e-6
batch_size: 16
loss_type: l2
beta_schedule: linear
parameterization: eps
conditioning_key: concat
unet_rosinality_config: {in_channel: 2, out_channel: 1, channel: 32, channel_multiplier: [1, 2], attn_strides: [2]}
"""


def write(folder, text, name="config.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_the_experiment_file_of_the_original_work_loads_unchanged():
    config = load_config(EXPERIMENT)
    assert config.data.kind == "hdf5"
    assert config.data.paths == ["./patches"]
    assert (config.data.noise.type, config.data.noise.variance, config.data.dynamic_range) == ("gaussian", 0.01, 255)
    assert (config.model.image_size, config.model.channels, config.model.timesteps) == (64, 1, 1000)
    assert (config.model.linear_start, config.model.linear_end) == (1e-4, 2e-2)
    assert (config.model.beta_schedule, config.model.parameterization) == ("linear", "eps")
    assert config.model.conditioning_key == "concat"
    assert (config.training.batch_size, config.training.learning_rate) == (16, 2e-6)
    assert config.training.max_tsteps == 100_000
    assert isinstance(config.training.max_tsteps, int)
    assert (config.training.loss_type, config.training.use_ema, config.training.ema_decay_factor) == (
        "l2",
        True,
        0.9999,
    )
    unet = config.model.unet_rosinality_config
    assert (unet.in_channel, unet.out_channel, unet.channel, unet.channel_multiplier) == (2, 1, 64, [1, 2, 4])
    assert (unet.n_res_blocks, unet.attn_strides, unet.attn_heads, unet.fold) == (2, [4], 1, 1)
    assert (unet.use_affine_time, unet.dropout) == (False, 0.1)


def test_the_notice_says_that_linear_meant_another_curve_in_the_original_code(caplog):
    with caplog.at_level(logging.INFO, logger="cdm4mi.config"):
        load_config(EXPERIMENT)
        assert "sqrt_linear" in caplog.text
        caplog.clear()
        load_config(EXPERIMENT, ["beta_schedule=cosine"])
        assert caplog.text == ""


def test_an_experiment_on_ixi_volumes_loads_with_few_keys(tmp_path, caplog):
    config = load_config(write(tmp_path, IXI))
    assert (config.data.kind, config.data.paths) == ("volumes", ["./ixi"])
    assert config.model.image_size == 128
    assert config.training.batch_size == 8
    assert config.training.warmup == 5000
    assert config.model.beta_schedule == "sqrt_linear"
    default = Config()
    assert config.data.noise == default.data.noise
    assert config.data.dynamic_range == default.data.dynamic_range
    assert config.training.use_ema is True
    assert "dataset.params.batch_size is ignored" in caplog.text


def test_target_size_resizes_slices_and_is_the_patch_unless_image_size_is(tmp_path, caplog):
    """The original code pads to a square, then resizes to (width, height)."""
    config = load_config(write(tmp_path, IXI))
    assert (config.data.resize, config.model.image_size) == (128, 128)
    both = load_config(write(tmp_path, IXI.replace("loss_type: huber", "image_size: 64")))
    assert (both.data.resize, both.model.image_size) == (128, 64)
    wide = load_config(write(tmp_path, IXI.replace("[128, 128]", "[128, 96]")))
    assert (wide.data.resize, wide.model.image_size) == ([96, 128], 96)
    assert "target_size is ignored" not in caplog.text
    changed = load_config(write(tmp_path, IXI), ["target_size=[64, 64]"])
    assert (changed.data.resize, changed.model.image_size) == (64, 64)
    with pytest.raises(UserError, match=r"target_size: found 'small', expected"):
        load_config(write(tmp_path, IXI.replace("!<tag:yaml.org,2002:seq> [128, 128]", "small")))


def test_numbers_of_samples_limit_training_slices_and_validation_patches(tmp_path):
    lines = "    num_of_train_samples: 25\n    num_of_val_samples: 6\n    loss_type"
    text = EXPERIMENT.read_text().replace("    loss_type", lines)
    config = load_config(write(tmp_path, text))
    assert (config.data.train_slices, config.data.val_patches) == (25, 6)


def test_network_keys_load_with_and_without_target_and_params(tmp_path):
    text = EXPERIMENT.read_text()
    start = text.index("      target: diffusion_modules.unet_arch")
    flat = text[:start] + "      channel: 32\n      n_res_blocks: 1\n"
    unet = load_config(write(tmp_path, flat)).model.unet_rosinality_config
    assert (unet.channel, unet.n_res_blocks, unet.channel_multiplier) == (32, 1, [1, 2, 4])


def test_the_unconditional_base_model_has_no_condition(tmp_path):
    text = EXPERIMENT.read_text().replace("ddpm_conditioned.ConditionDDPM", "ddpm_st_diffusion.DDPM")
    without = text.replace('    conditioning_key: "concat"\n', "").replace("in_channel: 2", "in_channel: 1")
    assert load_config(write(tmp_path, without)).model.conditioning_key == "none"
    null = EXPERIMENT.read_text().replace('conditioning_key: "concat"', "conditioning_key: null")
    assert load_config(write(tmp_path, null)).model.conditioning_key == "none"


def test_targets_of_later_files_below_src_are_the_same_names(tmp_path):
    text = EXPERIMENT.read_text().replace("target: ", "target: src.")
    assert load_config(write(tmp_path, text)) == load_config(EXPERIMENT)


def test_given_betas_replace_the_named_schedule(tmp_path):
    text = EXPERIMENT.read_text().replace('loss_type: "l2"', "given_betas: [0.1, 0.2, 0.3]")
    config = load_config(write(tmp_path, text))
    assert (config.model.beta_schedule, config.model.betas, config.model.timesteps) == ("custom", [0.1, 0.2, 0.3], 3)
    assert load_config(write(tmp_path, text.replace("[0.1, 0.2, 0.3]", "null"))).model.timesteps == 1000


def test_keys_without_a_meaning_here_are_left_out_with_a_notice(tmp_path, caplog):
    text = EXPERIMENT.read_text().replace(
        'loss_type: "l2"', "log_every_t: 200\n    monitor: val/loss\n    v_posterior: 0."
    )
    with caplog.at_level(logging.INFO, logger="cdm4mi.config"):
        assert load_config(write(tmp_path, text)) == load_config(EXPERIMENT)
    assert "model.params.log_every_t is ignored" in caplog.text
    assert "model.params.monitor is ignored" in caplog.text


def test_keys_with_a_meaning_that_is_not_supported_are_refused(tmp_path):
    text = EXPERIMENT.read_text().replace('loss_type: "l2"', "original_elbo_weight: 0.1")
    with pytest.raises(UserError, match=r"original_elbo_weight: found 0.1, expected 0: not supported"):
        load_config(write(tmp_path, text))


def test_own_sections_may_stand_beside_the_original_model(tmp_path):
    text = f"name: mine\nseed: 3\nsampling: {{steps: 10}}\n{EXPERIMENT.read_text()}"
    config = load_config(write(tmp_path, text))
    assert (config.name, config.seed, config.sampling.steps, config.training.batch_size) == ("mine", 3, 10, 16)
    with pytest.raises(UserError, match=r"training.batch_size: also given as model.params.batch_size"):
        load_config(write(tmp_path, f"{EXPERIMENT.read_text()}training: {{batch_size: 3}}\n"))


def test_a_flat_block_of_the_missions_keys_loads(tmp_path):
    config = load_config(write(tmp_path, FLAT))
    assert (config.model.timesteps, config.training.max_tsteps, config.training.batch_size) == (1000, 100_000, 16)
    assert config.model.unet_rosinality_config.channel == 32
    more = (
        "linear_start: 1e-3\nimage_size: 32\nchannels: 2\nuse_ema: false\nvariance: [0.01, 0.2]\nkind: phantoms\n"
        "steps: 20\nname: flat\nseed: 1e1\nwarmup_steps: 7\nnoise_type: gaussian\n"
    )
    config = load_config(write(tmp_path, FLAT + more))
    assert (config.model.linear_start, config.model.image_size, config.model.channels) == (1e-3, 32, 2)
    assert (config.training.use_ema, config.training.warmup) == (False, 7)
    assert (config.data.noise.variance, config.data.kind) == ([0.01, 0.2], "phantoms")
    assert (config.sampling.steps, config.name, config.seed) == (20, "flat", 10)


def test_a_flat_block_may_name_the_network_by_target_and_params(tmp_path):
    text = FLAT.replace("{in_channel", "{target: diffusion_modules.unet_arch.unet_rosinality.Unet, params: {in_channel")
    assert load_config(write(tmp_path, text.rstrip() + "}\n")) == load_config(write(tmp_path, FLAT, "flat.yaml"))


def test_flat_betas_are_the_schedules():
    config = parse_config({"beta_schedule": "custom", "timesteps": 2, "betas": [0.1, 0.2]})
    assert config.model.betas == [0.1, 0.2]
    assert config.training.betas == Config().training.betas


def test_every_flat_name_but_betas_has_one_place():
    names = [path[-1] for path in table() if len(path) > 1]
    assert {name for name in names if names.count(name) > 1} == {"betas"}


def test_the_own_layout_loads_with_any_part_left_out(tmp_path):
    config = load_config(
        write(tmp_path, "model:\n  timesteps: 10\n  unet_rosinality_config: {channel: 32}\nsampling:\n")
    )
    assert (config.model.timesteps, config.model.unet_rosinality_config.channel) == (10, 32)
    assert (config.training, config.sampling) == (Config().training, Config().sampling)


def test_anchors_and_merge_keys_are_resolved(tmp_path):
    text = "model: {image_size: &S 32}\ndata:\n  noise: &N {variance: 0.1}\nsampling: {tile: *S}\n"
    config = load_config(write(tmp_path, text))
    assert (config.sampling.tile, config.data.noise.variance) == (32, 0.1)


def test_the_mission_preset_is_the_missions_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config("mission", ["max_tsteps=100"])
    unet = config.model.unet_rosinality_config
    assert (unet.channel, config.model.parameterization, config.model.beta_schedule) == (64, "eps", "linear")
    assert (config.model.conditioning_key, config.model.timesteps) == ("concat", 1000)
    assert config.training.max_tsteps == 100
    (tmp_path / "mission").mkdir()
    assert load_config("mission", ["max_tsteps=100"]) == config


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_valid(name):
    assert isinstance(load_preset(name), Config)


def test_a_file_goes_before_a_preset_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "name: mine\n", "mission")
    assert load_config("mission").name == "mine"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("noise_type: s&p", {"type": "salt_and_pepper", "fraction": 0.05, "extremes": "both"}),
        ("noise_type: salt", {"type": "salt_and_pepper", "fraction": 0.05, "extremes": "salt"}),
        ("noise_type: pepper", {"type": "salt_and_pepper", "fraction": 0.05, "extremes": "pepper"}),
        ("noise_type: speckle", {"type": "speckle", "relative": pytest.approx(0.1)}),
        ("noise_type: gaussian", {"type": "gaussian", "variance": 0.01, "sigma_hu": None, "percent": None}),
    ],
)
def test_noise_types_of_the_original_work_have_one_here(words, expected, tmp_path, caplog):
    text = EXPERIMENT.read_text().replace("noise_type: gaussian", words)
    assert load_config(write(tmp_path, text)).data.noise.model_dump() == expected
    assert ("salt and pepper has no variance" in caplog.text) == (expected["type"] == "salt_and_pepper")
    name = words.split()[-1]
    assert load_config(EXPERIMENT, [f"noise_type={name}"]).data.noise.model_dump() == expected
    flat = load_config(write(tmp_path, FLAT + words + "\n"))
    assert flat.data.noise.model_dump() == expected


def test_super_resolution_of_the_original_work_downsamples_the_slice(tmp_path):
    sr = IXI.replace("load_ixi", "load_ixi_sr").replace(
        "noise_type: gaussian", "scale_factor: 4\n        image_size: 128"
    )
    config = load_config(write(tmp_path, sr))
    assert (config.data.noise.type, config.data.noise.factor, config.data.noise.method) == ("downsampled", 4, "average")
    assert (config.data.kind, config.data.patches_per_slice) == ("volumes", 1)
    assert (config.data.resize, config.model.image_size) == (128, 128)
    beside = load_config(write(tmp_path, sr.replace("loss_type: huber", "image_size: 64")))
    assert (beside.data.resize, beside.model.image_size) == (128, 64)
    with pytest.raises(UserError, match=r"scale_factor: found 0.5, expected at least 1"):
        load_config(write(tmp_path, sr.replace("scale_factor: 4", "scale_factor: 0.5")))


@pytest.mark.parametrize("name", ["load_berea_hdf5", "load_brain_hdf5"])
def test_hdf5_loaders_of_the_original_work_read_folders_of_patches(name, tmp_path):
    text = EXPERIMENT.read_text().replace("load_brain_hdf5", name)
    config = load_config(write(tmp_path, text))
    assert (config.data.kind, config.data.paths) == ("hdf5", ["./patches"])


def test_the_dilated_network_of_the_original_work_has_its_dilation(tmp_path):
    text = EXPERIMENT.read_text().replace("unet_rosinality.Unet", "unet_rosinality_dilated.Unet")
    assert load_config(write(tmp_path, text)).model.unet_rosinality_config.dilation == [1, 1, 1]
    text = text.replace("in_channel: 2,", "in_channel: 2, dilation: [1, 2, 1],")
    assert load_config(write(tmp_path, text)).model.unet_rosinality_config.dilation == [1, 2, 1]
    with pytest.raises(UserError, match=r"dilation: found \[1, 2\], expected"):
        load_config(write(tmp_path, text.replace("[1, 2, 1]", "[1, 2]")))


@pytest.mark.parametrize("name", ["L1", "L2", "Huber", "HUBER"])
def test_capital_letters_of_a_loss_are_small_ones(name, tmp_path):
    text = EXPERIMENT.read_text().replace('loss_type: "l2"', f"loss_type: {name}")
    assert load_config(write(tmp_path, text)).training.loss_type == name.lower()
    assert load_config("mission", [f"loss_type={name}"]).training.loss_type == name.lower()
    with pytest.raises(UserError, match=r"loss_type: found 'L3', expected 'l1', 'l2', 'huber' or 'log_l2'"):
        load_config(EXPERIMENT, ["loss_type=L3"])


def test_a_key_of_an_earlier_version_is_read_under_its_present_name():
    assert parse_config({"training": {"detail": 0.1, "batch_size": 3}}) == parse_config(
        {"training": {"neighbour_std": 0.1, "batch_size": 3}}
    )
