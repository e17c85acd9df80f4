"""The mean that the condition fixes: what a shift by it keeps, and that noise with a bias does not enter it."""

import pytest
import torch

from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation import Frame
from cdm4mi.diffusion.consistency import with_mean_of
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel

HEAD = Frame(0.0, 1000.0, modality="MR")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_every_sub_grid_gets_the_mean_of_the_reference_and_the_rest_is_kept(fold):
    x0_hat, reference = draw(3, 2, 16, 24), draw(3, 2, 16, 24, seed=1)
    out = with_mean_of(x0_hat, reference, fold)
    for row in range(fold):
        for column in range(fold):
            grid = (..., slice(row, None, fold), slice(column, None, fold))
            assert torch.allclose(out[grid].mean((-2, -1)), reference[grid].mean((-2, -1)), atol=1e-12)
            shift = out[grid] - x0_hat[grid]
            assert torch.allclose(shift, shift.mean((-2, -1), keepdim=True).expand_as(shift), atol=1e-12)
    assert torch.allclose(with_mean_of(out, reference, fold), out, atol=1e-12)  # a projection


@pytest.mark.parametrize(
    ("noise", "level"),
    [
        ({"type": "rician", "percent": 15.0}, 0.3),
        ({"type": "noncentral_chi", "percent": 10.0, "coils": 8}, 0.2),
        ({"type": "salt_and_pepper", "fraction": 0.2}, None),
        ({"type": "gaussian", "variance": 0.05}, 0.05**0.5),
    ],
)
def test_the_mean_is_free_of_the_bias_of_the_noise(noise, level):
    degradation = parse_config({"data": {"noise": noise}}).data.noise
    x0 = torch.stack([torch.from_numpy(phantom("MR", k, 128)).float() for k in range(4)])[:, None]
    x0 = HEAD.normalised(x0 * (1000.0 / x0.max()))
    generator = torch.Generator().manual_seed(2)
    y = degradation.apply(x0, degradation.draw(generator), generator, HEAD)
    found = degradation.unbiased(y, level or 0.0)
    assert found.shape == y.shape
    wrong, right = (abs(float((image - x0).mean())) for image in (y, found))
    assert right < 0.015
    assert noise["type"] == "gaussian" or right < 0.15 * wrong


def network_without_a_mean(fold):
    """A model of eps whose network is right but for the mean, which it never gives: as one norm a channel leaves it."""
    unet = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [], "fold": fold}
    config = parse_config(
        {"model": {"image_size": 16, "timesteps": 50, "linear_end": 0.4, "unet_rosinality_config": unet}}
    )
    return TrainedModel(build_network(config.model).eval(), build_process(config.model), config)


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("tile", [16, 48])
def test_samples_of_a_network_that_cannot_give_a_mean_have_that_of_the_scan(fold, tile):
    import numpy as np

    from cdm4mi.config.schema import SamplingConfig
    from cdm4mi.inference.slices import SliceRestorer

    model = network_without_a_mean(fold)
    rows = np.linspace(-0.6, 0.8, 48, dtype=np.float32)[:, None] + np.zeros((1, 48), np.float32)
    y = np.stack([rows, 0.5 * rows.T]) + 0.1 * np.random.default_rng(0).standard_normal((2, 48, 48)).astype(np.float32)
    options = {"solver": "ddim", "steps": 10, "estimate": "sample", "clip": False, "tile": tile, "overlap": 0.0}
    kept = SliceRestorer(model, SamplingConfig(**options)).restore(y, 0.1)
    lost = SliceRestorer(model, SamplingConfig(**options, keep_mean=False)).restore(y, 0.1)
    for k in range(2):
        for row in range(0, 48, tile):
            window = (k, slice(row, row + tile), slice(0, tile))
            assert abs(kept[window].mean() - y[window].mean()) < 1e-3
    assert np.abs(lost.mean((1, 2)) - y.mean((1, 2))).max() > 0.05
