"""Self- and cross-attention over the pixels of a feature map (memory linear in the tokens)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cdm4mi.networks.bf16_cpu import attend
from cdm4mi.networks.init import scaled_
from cdm4mi.networks.norms import make_norm


def position_encoding(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """Sines and cosines of the row and the column, (1, height * width, dim), dim a multiple of 4.

    Positions are centred pixels of the finest token grid, so that a map and its tokens can be matched by position.
    """
    freq = torch.exp(torch.arange(dim // 4, device=like.device) * (-math.log(100.0) / (dim // 4)))
    row = torch.linspace(-math.pi, math.pi, 2 * height + 1, device=like.device)[1::2]
    col = torch.linspace(-math.pi, math.pi, 2 * width + 1, device=like.device)[1::2]
    rows = torch.outer(row, freq * 8)[:, None].expand(height, width, -1)
    cols = torch.outer(col, freq * 8)[None, :].expand(height, width, -1)
    code = torch.cat([rows.sin(), rows.cos(), cols.sin(), cols.cos()], -1)
    return code.reshape(1, height * width, -1).to(like.dtype)


class SelfAttention(nn.Module):
    """Multi-head attention of a feature map (N, C, H, W) on itself, added to it.

    ``scale``: divide the products by the root of the head's width (``head``) or of all C channels (``channel``, as
    checkpoints of the original network with several heads were trained; with one head they are equal).
    """

    def __init__(
        self, in_channel: int, n_head: int = 1, scale: str = "head", norm_groups: int = 32, norm: str = "group"
    ) -> None:
        super().__init__()
        if in_channel % n_head:
            raise ValueError(f"attn_heads {n_head} does not divide the {in_channel} channels of the attention block")
        self.n_head = n_head
        self.scale = (in_channel // n_head if scale == "head" else in_channel) ** -0.5
        self.norm = make_norm(norm, norm_groups, in_channel)
        self.qkv = scaled_(nn.Conv2d(in_channel, in_channel * 3, 1))
        self.out = scaled_(nn.Conv2d(in_channel, in_channel, 1), 1e-10)

    def forward(self, x: Tensor) -> Tensor:
        n, channel, height, width = x.shape
        # the fused kernel wants each token's numbers side by side (free in channels_last); else torch falls back to a
        # tokens x tokens matrix without a word
        tokens: Tensor = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        # per head: q, k, v in that order; each (N, heads, tokens, width of a head)
        q, k, v = tokens.unflatten(-1, (self.n_head, -1)).transpose(1, 2).chunk(3, dim=-1)
        out = attend(q, k, v, self.scale)
        added: Tensor = self.out(out.transpose(2, 3).reshape(n, channel, height, width))
        return added.add_(x)


class CrossAttention(nn.Module):
    """Attention of a feature map (N, C, H, W) on tokens (N, L, context_dim), added to the map.

    Queries contain their position, as the tokens of ``TokenEncoder`` do, so that a pixel can find its neighbourhood.
    """

    def __init__(
        self, in_channel: int, context_dim: int, n_head: int = 1, norm_groups: int = 32, norm: str = "group"
    ) -> None:
        super().__init__()
        self.n_head = n_head
        self.norm = make_norm(norm, norm_groups, in_channel)
        self.place = nn.Linear(64, in_channel)
        self.q = nn.Linear(in_channel, in_channel, bias=False)
        self.kv = nn.Linear(context_dim, 2 * in_channel, bias=False)
        self.out = scaled_(nn.Conv2d(in_channel, in_channel, 1), 1e-10)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.n_head, -1))
        return heads.transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, channel, height, width = x.shape
        h = self.norm(x).flatten(2).transpose(1, 2) + self.place(position_encoding(height, width, 64, x))
        k, v = self.kv(context).chunk(2, dim=-1)
        out = attend(self._heads(self.q(h)), self._heads(k), self._heads(v))
        added: Tensor = self.out(out.transpose(2, 3).reshape(n, channel, height, width))
        return added.add_(x)
