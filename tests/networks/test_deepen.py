"""Residual blocks that are inserted into a trained UNet leave its output as it is, and can be trained."""

from __future__ import annotations

import pytest
import torch

from cdm4mi.networks import UNet
from cdm4mi.networks.deepen import deepened

SMALL = {"in_channel": 2, "channel": 8, "channel_multiplier": [1, 2], "norm_groups": 4, "dropout": 0.0}


def trained(blocks: int, **options: object) -> UNet:
    """A UNet whose weights are all far from zero, as after a training."""
    unet = UNet(**SMALL | options, n_res_blocks=blocks).eval()
    with torch.no_grad():
        for p in unet.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return unet


@pytest.mark.parametrize(
    ("fewer", "more", "options"),
    [
        (1, 2, {"attn_strides": [], "attn_middle": False, "norm": "pixel", "use_affine_time": True}),
        (1, 4, {"attn_strides": [2]}),
        (2, 3, {"attn_strides": [1, 2], "channel_multiplier": [1, 2, 4], "vector_dim": 3}),
        (2, 2, {}),
    ],
)
def test_the_output_stays_what_it_is(fewer, more, options):
    """The oracle is the shallow network itself; without the right order of skips nothing agrees."""
    shallow, deep = trained(fewer, **options), UNet(**SMALL | options, n_res_blocks=more).eval()
    deep.load_state_dict(deepened(shallow.state_dict(), fewer, deep))
    x, t = torch.randn(2, 2, 16, 16), torch.tensor([3, 700])
    vector = torch.randn(2, 3) if "vector_dim" in options else None
    torch.testing.assert_close(deep(x, t, vector=vector), shallow(x, t, vector=vector), rtol=1e-4, atol=1e-4)


def test_inserted_blocks_learn():
    deep = UNet(**SMALL, n_res_blocks=2)
    deep.load_state_dict(deepened(trained(1).state_dict(), 1, deep))
    deep(torch.randn(2, 2, 16, 16), torch.tensor([3, 700])).square().sum().backward()
    inserted = deep.get_submodule("down.2.resblocks")
    assert inserted.conv2.weight.grad.abs().max() > 0


def test_fewer_blocks_are_refused():
    with pytest.raises(ValueError, match="found 2 residual blocks a level, expected at most 1"):
        deepened(trained(2).state_dict(), 2, UNet(**SMALL, n_res_blocks=1))
