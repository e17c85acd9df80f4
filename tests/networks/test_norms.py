"""The norm of each pixel's channels, what follows it at once, and what a network with it alone sees."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from awake_network import awake

from cdm4mi.networks import UNet
from cdm4mi.networks.norms import PixelNorm, make_norm, normed_silu

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


@pytest.mark.parametrize("kind", ["pixel", "group"])
@pytest.mark.parametrize("gradient", [True, False])
def test_silu_of_the_scaled_norm_leaves_its_input(kind, gradient):
    x, gamma, beta = torch.randn(2, 6, 3, 5), torch.randn(2, 6), torch.randn(2, 6)
    before, norm = x.clone(), make_norm(kind, 3, 6, affine=False)
    expected = (1 + gamma[:, :, None, None]) * norm(x) + beta[:, :, None, None]
    with torch.set_grad_enabled(gradient):
        assert torch.allclose(normed_silu(norm, x, gamma, beta), expected * expected.sigmoid(), atol=1e-6)
        assert torch.allclose(normed_silu(norm, x), norm(x) * norm(x).sigmoid(), atol=1e-6)
    assert torch.equal(x, before)


SAME_IN_ONE_PASS = """
import sys, torch
from cdm4mi.networks.norms import PixelNorm
from cdm4mi.networks.pixel_norm_gpu import pixel_norm_silu
device = sys.argv[1]
for n, channels, height, width in ((2, 16, 20, 41), (1, 48, 7, 30), (3, 6, 8, 1), (2, 256, 5, 3)):
    for dtype, most in ((torch.float32, 2e-5), (torch.bfloat16, 0.02)):
        x = (torch.randn(n, channels, height, width) * 3 + 1).to(dtype)
        normed = PixelNorm(channels, affine=False)(x.float())
        scale, shift = torch.randn(n, 2 * channels).chunk(2, 1)  # as a residual block has them: views of one tensor
        for a, b in ((scale[0], shift[0]), (scale, shift)):
            expected = normed * a.expand(n, -1)[..., None, None] + b.expand(n, -1)[..., None, None]
            expected = expected * expected.sigmoid()
            for order in (torch.contiguous_format, torch.channels_last):
                given = x.to(device, memory_format=order)
                found = pixel_norm_silu(given, a.to(device), b.to(device), 1e-5)
                assert found.dtype == dtype and found.stride() == given.stride()
                error = (found.float().cpu() - expected).abs() / (1 + expected.abs())
                assert error.max() < most, (channels, dtype, order, error.max())
print("same")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton, which torch for a GPU brings along")
def test_in_one_pass_on_a_gpu_it_is_the_same():
    gpu = torch.cuda.is_available()
    environment = os.environ if gpu else os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", SAME_IN_ONE_PASS, "cuda" if gpu else "cpu"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.stdout == "same\n", run.stderr


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
