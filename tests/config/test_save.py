"""A saved configuration is the whole configuration: it loads equal, and appears whole or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cdm4mi.config import Config, load_config, load_preset, parse_config, save_config
from cdm4mi.config.schema import DataConfig, ModelConfig, SamplingConfig, TrainingConfig, UNetConfig
from cdm4mi.degradation import GaussianNoise
from cdm4mi.degradation.noises.rician import RicianNoise
from cdm4mi.degradation.registry import Composition
from cdm4mi.errors import UserError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda t: "${" not in t and t != "???")
counts = st.integers(1, 2**40)
positives = st.floats(1e-300, 1e300)
fractions = st.floats(0, 1)
pairs = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2)
ranges = positives | st.lists(positives, min_size=2, max_size=2).map(sorted)
simple_noises = st.builds(GaussianNoise, variance=ranges) | st.builds(RicianNoise, percent=ranges)
noises = (
    simple_noises
    | st.builds(GaussianNoise, variance=st.none(), sigma_hu=ranges)
    | st.builds(Composition, parts=st.lists(simple_noises, min_size=1, max_size=3))
)

configs = st.builds(
    Config,
    name=texts,
    seed=st.integers(0, 2**63 - 1),
    model=st.builds(
        ModelConfig,
        timesteps=st.integers(2, 1000),
        linear_start=st.floats(1e-12, 0.5),
        cosine_s=positives,
        sigma_r=st.none() | positives,
        conditioning_key=st.sampled_from(["concat", "none"]),
        acquisition_vector=st.none() | st.lists(st.sampled_from(["noise_level", "pixel_spacing"]), max_size=3),
        unet_rosinality_config=st.builds(UNetConfig, channel_multiplier=st.lists(counts, min_size=1, max_size=4)),
    ),
    data=st.builds(
        DataConfig,
        paths=st.lists(texts, max_size=3),
        window=pairs,
        val_fraction=fractions,
        noise=noises,
    ),
    training=st.builds(
        TrainingConfig,
        learning_rate=st.floats(1e-300, 1e30),
        precision=st.sampled_from(["32", "bf16"]),
        use_ema=st.booleans(),
        min_snr_gamma=st.none() | positives,
    ),
    sampling=st.builds(SamplingConfig, eta=fractions, tile=st.none() | counts),
)


@settings(max_examples=40, deadline=None)
@given(config=configs)
def test_a_saved_configuration_loads_equal(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config


@settings(deadline=None)
@given(steps=counts)
def test_a_whole_number_may_be_written_as_a_float(steps):
    mantissa = f"{steps:.20e}"
    assert parse_config({}, [f"max_tsteps={mantissa}"]).training.max_tsteps == steps
    assert parse_config({"max_tsteps": float(steps)}).training.max_tsteps == steps


def test_a_saved_configuration_holds_every_key(tmp_path):
    save_config(load_preset("mission"), tmp_path / "new" / "config.yaml")
    saved = OmegaConf.to_container(OmegaConf.load(tmp_path / "new" / "config.yaml"))
    assert saved == load_preset("mission").model_dump()


def test_a_configuration_that_could_not_be_read_back_is_not_written(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(Config(), path)
    with pytest.raises(UserError, match="name: found"):
        save_config(Config(name="${oc.env:HOME}"), path)
    assert load_config(path) == Config()
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_a_folder_that_cannot_be_written_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be made \(File exists\)"):
        save_config(Config(), tmp_path / "file" / "config.yaml")
