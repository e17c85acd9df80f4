"""The norm of each pixel's channels, and what a network with it alone sees."""

import pytest
import torch
from awake_network import awake

from cdm4mi.networks import UNet
from cdm4mi.networks.norms import PixelNorm

LOCAL = {
    "in_channel": 1,
    "channel": 8,
    "channel_multiplier": (1, 2),
    "n_res_blocks": 1,
    "attn_strides": (),
    "attn_middle": False,
    "norm_groups": 4,
    "dropout": 0.0,
}
REACH = 32
"""Pixels, more than this network's output depends on to either side."""


def test_pixel_norm_is_layer_norm_of_the_channels():
    x, norm = torch.randn(2, 6, 3, 5) * 3 + 1, PixelNorm(6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    scaled = (x - mean) / torch.sqrt(variance + 1e-5)
    expected = scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm(x), expected, atol=1e-5)
    assert torch.allclose(norm.by_sums(x), expected, atol=1e-5)
    half = norm.by_sums(x.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), expected, atol=0.05)
    plain = PixelNorm(6, affine=False)
    assert not list(plain.parameters())
    assert torch.allclose(plain(x), scaled, atol=1e-5)
    assert torch.allclose(plain.by_sums(x), scaled, atol=1e-5)


@pytest.mark.parametrize(("norm", "local"), [("pixel", True), ("group", False)])
def test_a_window_gives_what_the_slice_gives_where_no_statistic_is_of_the_whole_image(norm, local):
    unet = awake(UNet(**LOCAL, norm=norm)).eval()
    x, t = torch.randn(1, 1, 16 + 2 * REACH, 16 + 2 * REACH + 64), torch.tensor([7])
    with torch.no_grad():
        whole = unet(x, t)[..., REACH : REACH + 16, REACH : REACH + 16]
        window = unet(x[..., : 16 + 2 * REACH], t)[..., REACH : REACH + 16, REACH : REACH + 16]
    assert torch.allclose(whole, window, atol=1e-5) == local


def test_without_attention_in_the_middle_there_is_none():
    assert not any("attention" in name for name, _ in UNet(**LOCAL).named_parameters())
    assert any("attention" in name for name, _ in UNet(**LOCAL | {"attn_middle": True}).named_parameters())
