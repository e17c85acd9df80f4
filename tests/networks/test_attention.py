"""Attention: its value by an explicit sum over tokens, its scale, its memory, and the place of tokens."""

import pytest
import torch
from awake_network import awake
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cdm4mi.networks import SelfAttention, UNet
from cdm4mi.networks.attention import CrossAttention, position_encoding
from cdm4mi.networks.encoders import TokenEncoder


def attend(q, k, v, scale):
    """Softmax attention token by token, in float64: (tokens, d), (keys, d), (keys, d) to (tokens, d)."""
    out = torch.zeros(len(q), v.shape[1], dtype=torch.float64)
    for i in range(len(q)):
        score = torch.stack([torch.dot(q[i], k[j]) for j in range(len(k))]).double() * scale
        weight = torch.exp(score - score.max())
        out[i] = (weight[:, None] / weight.sum() * v.double()).sum(0)
    return out


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", ["head", "channel"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_self_attention_equals_the_sum_over_tokens_for_each_head(heads, scale, memory_format):
    channel, height, width = 32, 3, 5
    module = awake(SelfAttention(channel, heads, scale)).to(memory_format=memory_format)
    x = torch.randn(2, channel, height, width, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=memory_format)
    with torch.no_grad():
        out = module(x)
        joined = module.qkv(module.norm(x)).flatten(2).contiguous()
        d = channel // heads
        divisor = d**0.5 if scale == "head" else channel**0.5
        mixed = torch.zeros(2, channel, height * width)
        for n in range(2):
            for head in range(heads):  # each head has its q, then its k, then its v
                q, k, v = (joined[n, (3 * head + part) * d : (3 * head + part + 1) * d].T for part in range(3))
                mixed[n, head * d : (head + 1) * d] = attend(q, k, v, 1 / divisor).T.float()
        expected = x + module.out(mixed.view(2, channel, height, width))
    assert torch.allclose(out, expected, atol=1e-5)


def test_the_two_scales_are_one_for_one_head_and_differ_for_several():
    x = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    for heads, equal in ((1, True), (4, False)):
        one, other = awake(SelfAttention(32, heads, "head")), awake(SelfAttention(32, heads, "channel"))
        assert torch.allclose(one(x), other(x), atol=1e-6) is equal


@pytest.mark.parametrize("heads", [1, 4])
def test_cross_attention_equals_the_sum_over_tokens_for_each_head(heads):
    channel, height, width, dim, length = 32, 2, 3, 64, 7
    module = awake(CrossAttention(channel, dim, heads))
    generator = torch.Generator().manual_seed(1)
    x, context = (
        torch.randn(2, channel, height, width, generator=generator),
        torch.randn(2, length, dim, generator=generator),
    )
    with torch.no_grad():
        out = module(x, context)
        h = module.norm(x).flatten(2).transpose(1, 2) + module.place(position_encoding(height, width, 64, x))
        q, (k, v) = module.q(h), module.kv(context).chunk(2, dim=-1)
        d = channel // heads
        mixed = torch.zeros(2, channel, height * width)
        for n in range(2):
            for head in range(heads):
                own = slice(head * d, (head + 1) * d)
                mixed[n, own] = attend(q[n, :, own], k[n, :, own], v[n, :, own], d**-0.5).T.float()
        expected = x + module.out(mixed.view(2, channel, height, width))
    assert torch.allclose(out, expected, atol=1e-5)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes, backward included."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *(tensor.numel() for tensor in tensors)])
        return out


def largest(size, heads, memory_format):
    # a context of as many tokens as the map has, so that a tokens x tokens matrix would show there too
    unet = UNet(1, 1, 32, (1,), 1, (1,), heads, dropout=0.0, context_dim=32).to(memory_format=memory_format)
    x = torch.randn(1, 1, size, size)
    with Largest() as seen:
        unet(x, torch.tensor([3]), torch.randn(1, size * size, 32)).sum().backward()
    return seen.elements


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_makes_no_tokens_by_tokens_matrix(heads, memory_format):
    """Forward and backward, in both memory layouts: torch falls back to the matrix without a word."""
    small, large = largest(16, heads, memory_format), largest(32, heads, memory_format)
    assert large < (32 * 32) ** 2 / 4
    assert large == 4 * small  # four times the tokens, four times the memory


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="attn_heads 3 does not divide the 32 channels"):
        SelfAttention(32, 3)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 8)])
def test_a_pixel_finds_the_token_of_its_own_place(height, width):
    """Of the places of a token grid, the one most like a pixel's place is the token that covers the pixel."""
    like = torch.zeros(1)
    tokens = position_encoding(height, width, 64, like)[0]
    pixels = position_encoding(4 * height, 4 * width, 64, like)[0]
    nearest = (pixels @ tokens.T).argmax(1).view(4 * height, 4 * width)
    own = torch.arange(height * width).view(height, width)
    assert torch.equal(nearest, own.repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_cross_attention_depends_on_the_content_of_tokens_and_not_on_their_order():
    module = awake(CrossAttention(32, 64))
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(1, 32, 4, 4, generator=generator), torch.randn(1, 6, 64, generator=generator)
    with torch.no_grad():
        out = module(x, context)
        assert torch.allclose(module(x, context[:, torch.randperm(6, generator=generator)]), out, atol=1e-5)
        assert not torch.allclose(module(x, context + 1), out, atol=1e-2)


def test_the_place_of_a_structure_in_the_image_reaches_the_map():
    """Moved patches of a conditioning image are not the same tokens in another order: they carry their place."""
    module, encoder = awake(CrossAttention(32, 64)), awake(TokenEncoder(1, 64))
    image = torch.zeros(1, 1, 32, 32)
    image[..., 8:16, 8:16] = 1
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        here, there = (module(x, encoder(shifted)) for shifted in (image, image.roll((8, 8), (2, 3))))
    assert encoder(image).shape == (1, 16, 64)
    assert float((here - there).abs().max()) > 1e-2


def test_a_map_without_structure_still_tells_its_pixels_apart_by_place():
    module = awake(CrossAttention(32, 64))
    context = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = module(torch.zeros(1, 32, 4, 4), context)
    assert float((out - out[..., :1, :1]).abs().max()) > 1e-2
