"""What a CPU computes in bf16 by other operations: the same maths as torch's, in every shape, with its gradients."""

import pytest
import torch
import torch.nn.functional as F
from awake_network import awake

from cdm4mi.networks import SelfAttention, UNet, bf16_cpu
from cdm4mi.networks.bf16_cpu import Dropout, UpsampledConvolution, attend


@pytest.fixture
def always(monkeypatch):
    """The operations of this file on any machine and in any number format, float64 for an exact comparison."""
    monkeypatch.setattr(bf16_cpu, "faster", lambda x: True)


def qkv(heads, length, keys, width, dtype, grad=False):
    generator = torch.Generator().manual_seed(0)
    sizes = (length, keys, keys)
    made = [torch.randn(2, heads, size, width, generator=generator, dtype=torch.float64) for size in sizes]
    return [x.to(dtype).requires_grad_(grad) for x in made]


def softmax_attention(q, k, v, scale):
    """Of float64 numbers, with the whole matrix of scores."""
    return torch.softmax(q.double() @ k.double().transpose(-1, -2) * scale, -1) @ v.double()


@pytest.mark.parametrize("scores", [2**24, 5000, 1])
@pytest.mark.parametrize(("heads", "length", "keys", "width"), [(1, 64, 64, 64), (3, 37, 11, 65), (2, 1, 5, 256)])
def test_attention_is_softmax_attention_whatever_the_block(always, monkeypatch, scores, heads, length, keys, width):
    monkeypatch.setattr(bf16_cpu, "SCORES", scores)
    q, k, v = qkv(heads, length, keys, width, torch.float64)
    for scale in (None, 0.3):
        expected = softmax_attention(q, k, v, width**-0.5 if scale is None else scale)
        assert torch.allclose(attend(q, k, v, scale), expected, atol=1e-12)
    rounded = attend(*(x.bfloat16() for x in (q, k, v)))
    assert rounded.dtype == torch.bfloat16
    expected = softmax_attention(*(x.bfloat16() for x in (q, k, v)), width**-0.5)
    assert float((rounded - expected).pow(2).mean().sqrt() / expected.std()) < 0.01


@pytest.mark.parametrize("scores", [2**24, 5000])
def test_attention_has_the_gradients_of_softmax_attention(always, monkeypatch, scores):
    monkeypatch.setattr(bf16_cpu, "SCORES", scores)
    q, k, v = qkv(3, 37, 11, 64, torch.float64, grad=True)
    weight = torch.randn(2, 3, 37, 64, dtype=torch.float64)
    found = torch.autograd.grad(attend(q, k, v), (q, k, v), weight)
    expected = torch.autograd.grad(softmax_attention(q, k, v, 0.125), (q, k, v), weight)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_attention_under_autocast_has_little_memory_with_and_without_a_gradient(always, monkeypatch):
    """No call makes more scores than SCORES: with a gradient the fused kernel has them, which keeps none."""
    monkeypatch.setattr(bf16_cpu, "SCORES", 2**14)
    made = []
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda x, *a, **k: made.append(x.numel() * 2) or softmax(x, *a, **k))
    module, x = awake(SelfAttention(64)), torch.randn(1, 64, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        learnt = module(x).detach()
        assert not made
        with torch.no_grad():
            out = module(x)
    assert len(made) == 8
    assert max(made) <= 2**14
    assert float((out - learnt).abs().max()) < 0.05
    assert float((out - x).abs().max()) > 0.5


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 7), (1, 1)])
def test_the_convolution_of_an_upsampled_map_is_that_of_torch(always, height, width):
    layer = awake(UpsampledConvolution(8)).double()
    torch.nn.init.normal_(layer[1].bias)
    x = torch.randn(2, 8, height, width, dtype=torch.float64, requires_grad=True)
    learnt = (x, layer[1].weight, layer[1].bias)
    one, other = layer(x), layer[1](F.interpolate(x, scale_factor=2, mode="nearest"))
    assert torch.allclose(one, other, atol=1e-12)
    weight = torch.randn_like(one)
    for a, b in zip(*(torch.autograd.grad(out, learnt, weight) for out in (one, other)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_dropout_drops_its_share_in_every_layout_and_keeps_the_mean(always):
    layer = Dropout(0.1)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.ones(3, 5, 61, 67, dtype=torch.bfloat16).contiguous(memory_format=layout).requires_grad_()
        torch.manual_seed(1)
        out = layer(x)
        torch.manual_seed(1)
        assert torch.equal(layer(x), out)
        assert not torch.equal(layer(x), out)
        assert torch.equal(out.unique(), torch.tensor([0, 1 / 0.9], dtype=torch.bfloat16))
        dropped = (out == 0).float()
        assert float(dropped.mean()) == pytest.approx(0.1, abs=5 * (0.09 / x.numel()) ** 0.5)
        for dim in range(1, 4):  # as independent of its neighbour as of another element
            pairs = dropped.narrow(dim, 1, x.shape[dim] - 1) * dropped.narrow(dim, 0, x.shape[dim] - 1)
            assert float(pairs.mean()) == pytest.approx(0.01, abs=5 * (0.01 / pairs.numel()) ** 0.5)
        assert torch.equal(torch.autograd.grad(out.sum(), x)[0], out)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize(("p", "mean"), [(0.0, 1.0), (1e-6, 1.0), (0.5, 1.0), (1.0, 0.0)])
def test_dropout_of_any_share(always, p, mean):
    out = Dropout(p)(torch.ones(101, 203, dtype=torch.bfloat16))
    assert float(out.float().mean()) == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize("grad", [False, True])
def test_a_unet_in_bf16_is_as_near_to_float32_as_with_the_operations_of_torch(monkeypatch, grad):
    unet = awake(UNet(channel=64, channel_multiplier=(1, 2), n_res_blocks=1, attn_strides=(1, 2), dropout=0.0))
    unet = unet.to(memory_format=torch.channels_last)
    x, t = torch.randn(2, 2, 24, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 500])
    exact = unet(x, t).detach()
    errors = []
    for other in (True, False):
        monkeypatch.setattr(bf16_cpu, "faster", lambda x, other=other: other and x.dtype == torch.bfloat16)
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
            errors.append(float((unet(x, t).detach() - exact).pow(2).mean().sqrt() / exact.std()))
    assert errors[0] != errors[1]
    assert errors[0] < 1.5 * errors[1] < 0.1
