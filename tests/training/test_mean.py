"""What a network that predicts eps knows of the noise, band by band: its mean as well as the rest."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from cdm4mi.config import parse_config
from cdm4mi.models import build_network, build_process

SIDE, STEPS, BATCH, SIGMA = 16, 50, 16, 0.25
MISSION = {"mean_from": "condition", "norm_groups": 8}
ORIGINAL = {"mean_from": "network", "norm_groups": 32}


def pairs(n, generator):
    """Smooth images of different brightness, and the same with white noise."""
    coarse = 0.3 * torch.randn((n, 1, 4, 4), generator=generator)
    x0 = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
    x0 = x0 + torch.rand((n, 1, 1, 1), generator=generator) - 0.5
    return x0, x0 + SIGMA * torch.randn(x0.shape, generator=generator)


def trained(mean_from, norm_groups):
    unet = {"channel": 32, "channel_multiplier": [1, 2], "n_res_blocks": 1, "attn_strides": [], "dropout": 0.0}
    model = {"mean_from": mean_from, "unet_rosinality_config": unet | {"norm_groups": norm_groups}}
    config = parse_config({"model": {"image_size": SIDE} | model}).model
    torch.manual_seed(0)
    network, process = build_network(config), build_process(config)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 15) * (1 - step / STEPS)
        t = torch.randint(0, 1000, (BATCH,), generator=generator)
        out, target, _ = predicted(network, process, *pairs(BATCH, generator), t, generator)
        optimizer.zero_grad()
        (out - target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval(), process


def predicted(network, process, x0, y, t, generator):
    """Output and target of the network, and the error of eps_hat."""
    eps = torch.randn(x0.shape, generator=generator)
    cond = process.condition(y, torch.full((len(y),), SIGMA))
    z = process.latent(process.path.q_sample(x0, t, eps), t, cond)
    out = process.output(network, z, cond)
    error = process.path.eps(z.x_t, process.parameterization.x0(out, z), t) - eps
    return out, process.parameterization.target(x0, eps, z), error


def band_errors(network, process, t):
    """Mean square error of eps_hat per orthonormal DCT coefficient: (DC, low band)."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        error = predicted(network, process, *pairs(256, generator), torch.full((256,), t), generator)[2]
    power = (dctn(error[:, 0].double().numpy(), axes=(1, 2), norm="ortho") ** 2).mean(0)
    order = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    return power[0, 0], power[(order >= 1) & (order <= 4)].mean()


@pytest.fixture(scope="module", params=[MISSION, ORIGINAL], ids=["mission", "original"])
def named(request):
    return request.param is MISSION, trained(**request.param)


@pytest.mark.parametrize("t", [999, 500])
def test_the_mean_of_eps_is_known_as_well_as_its_low_band(named, t):
    mission, model = named
    mean, low = band_errors(*model, t)
    # 32 groups of one channel each lose every mean: the original's network is where it began
    assert mean < 2 * low if mission else mean > 10 * low
