"""A model that is told the texture of noise gets what was measured of the scan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from awake_network import awake
from scipy.ndimage import gaussian_filter

from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.scan import WHITE
from cdm4mi.intensity import window_for
from cdm4mi.io import Volume
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.training.modules import ConditionDDPM


@pytest.fixture(scope="module")
def model():
    unet = {"in_channel": 6, "channel": 16, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": []}
    unet |= {"attn_middle": False, "norm": "pixel", "dropout": 0.0, "use_affine_time": True}
    config = parse_config(
        {
            "model": {"path": "residual", "image_size": 32, "level_channel": True, "texture_channels": True}
            | {"unet_rosinality_config": unet},
            "data": {"noise": {"type": "coloured", "spectrum": "smoothed", "variance": [1e-4, 0.25]}},
            "sampling": {"estimate": "mean", "clip": False, "tile": 96},
        }
    )
    network = awake(build_network(config.model)).eval()
    return TrainedModel(network, build_process(config.model), config, name="told")


def test_the_measured_texture_is_told(model):
    clean = np.stack([phantom("CT", 5, 96).clip(-900, 600)] * 2)
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal(clean.shape), (0, 0.7, 0.7))
    volume = Volume((clean + 80 * smooth / smooth.std()).astype(np.float32), np.eye(4), "CT")
    measured = estimate_noise(volume.array)
    assert measured.correlation > 0.4
    restorer, window = Restorer(model), window_for(volume)
    y = window.normalised(volume.array)
    found = restorer.restore(volume).volume.array
    told, untold = (
        window.physical(restorer.slices.moments(y, measured.sigma * window.scale, texture=texture)[0])
        for texture in (measured.texture, WHITE)
    )
    inside = np.abs(volume.array) < 900
    np.testing.assert_allclose(found[inside], told[inside], atol=0.1)
    assert np.abs(told - untold)[inside].max() > 5


def test_a_level_that_varies_is_given_as_a_map_to_a_model_that_takes_one(model):
    rows = np.linspace(-1, 1, 128)[:, None]
    noise = 40 * np.exp(0.6 * rows) * np.random.default_rng(2).standard_normal((4, 128, 128))
    volume = Volume((300 + noise).astype(np.float32), np.eye(4), "CT")
    measured = estimate_noise(volume.array)
    assert measured.relative_map is not None
    assert float(measured.relative_map[-10:].mean() / measured.relative_map[:10].mean()) > 2
    config = model.config.model_copy(update={"data": model.config.data.model_copy(update={"level_map_share": 0.5})})
    mapped, window = Restorer(replace(model, config=config)), window_for(volume)
    y, sigma = window.normalised(volume.array), measured.sigma * window.scale
    expected = mapped.slices.moments(y, sigma, texture=measured.texture, relative_level=measured.relative_map)[0]
    found = mapped.restore(volume).volume.array
    np.testing.assert_allclose(found, window.physical(expected), atol=0.1)
    assert np.abs(found - Restorer(model).restore(volume).volume.array).max() > 1
    given = mapped.restore(volume, noise=measured.sigma).volume.array
    np.testing.assert_allclose(given, Restorer(model).restore(volume, noise=measured.sigma).volume.array)


def test_a_level_that_is_given_is_used_with_the_texture_that_is_measured(model):
    clean = phantom("CT", 5, 96)[None]
    noisy = Volume(
        (clean + 60 * np.random.default_rng(1).standard_normal(clean.shape)).astype(np.float32), np.eye(4), "CT"
    )
    level = Restorer(model).restore(noisy, noise=77.0).record.noise_level
    assert (level.value, level.estimated) == (77.0, False)
    assert level.correlations == pytest.approx(estimate_noise(noisy.array).correlations, abs=1e-3)


def test_the_loss_takes_the_texture():
    torch.manual_seed(0)
    unet = {
        "in_channel": 6,
        "channel": 16,
        "channel_multiplier": [1],
        "n_res_blocks": 1,
        "attn_strides": [],
        "norm": "pixel",
        "dropout": 0.0,
    }
    ddpm = ConditionDDPM(path="residual", level_channel=True, texture_channels=True, unet_rosinality_config=unet)
    awake(ddpm.model)
    x0, y = torch.rand(2, 2, 1, 16, 16)
    texture, index = torch.tensor([[0.5, 0.5, 1.0]] * 2), torch.arange(2)
    given = ({"texture": t} for t in (None, texture, texture))
    white, told, again = (ddpm.loss(x0, y, sigma=0.1, index=index, **options).item() for options in given)
    assert told == again != white
    assert ddpm.sample(y, sigma=0.1, texture=texture, steps=2).shape == y.shape
