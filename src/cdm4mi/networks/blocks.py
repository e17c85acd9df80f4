"""The blocks of the UNet: time embedding, residual block, and the residual block with attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cdm4mi.networks.attention import CrossAttention, SelfAttention
from cdm4mi.networks.bf16_cpu import Dropout
from cdm4mi.networks.init import scaled_
from cdm4mi.networks.norms import make_norm, normed_silu


class TimeEmbedding(nn.Module):
    """Times (N,) to sines, then cosines, of t exp(-ln(10000) (0, 2, 4, ...) / dim): (N, dim)."""

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        # computed on the CPU wherever the network is made: a product on the meta device makes torch import its compiler
        frequencies = torch.exp(torch.arange(0, dim, 2, device="cpu").float() * (-math.log(10000) / dim))
        self.register_buffer("inv_freq", frequencies.to(torch.get_default_device()))

    def forward(self, t: Tensor) -> Tensor:
        angle = torch.outer(t.to(self.inv_freq.dtype), self.inv_freq)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with the embedding of time (and vector) between them, plus the input.

    The embedding (N, time_dim) is added before the second norm or, with use_affine_time, scales and shifts the output
    of a norm without affine parameters: (1 + gamma) h + beta. dilation: of the second convolution.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        time_dim: int,
        use_affine_time: bool,
        dropout: float,
        norm_groups: int = 32,
        norm: str = "group",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.use_affine_time = use_affine_time
        self.norm1 = make_norm(norm, norm_groups, in_channel)
        self.conv1 = scaled_(nn.Conv2d(in_channel, out_channel, 3, padding=1))
        self.time = nn.Sequential(nn.SiLU(), scaled_(nn.Linear(time_dim, out_channel * (2 if use_affine_time else 1))))
        self.norm2 = make_norm(norm, norm_groups, out_channel, affine=not use_affine_time)
        self.dropout = Dropout(dropout)
        self.conv2 = scaled_(nn.Conv2d(out_channel, out_channel, 3, padding=dilation, dilation=dilation), 1e-10)
        self.skip = scaled_(nn.Conv2d(in_channel, out_channel, 1)) if in_channel != out_channel else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h: Tensor = self.conv1(normed_silu(self.norm1, x))
        emb = self.time(time)
        if self.use_affine_time:
            h = normed_silu(self.norm2, h, *emb.chunk(2, dim=1))
        else:
            h = normed_silu(self.norm2, h.add_(emb[:, :, None, None]))
        h = self.conv2(self.dropout(h))
        skipped: Tensor = x if self.skip is None else self.skip(x)
        return h.add_(skipped)


class ResBlockWithAttention(nn.Module):
    """A residual block, then self-attention and, where the network has a context, cross-attention."""

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        time_dim: int,
        dropout: float,
        *,
        use_attention: bool = False,
        attention_head: int = 1,
        attention_scale: str = "head",
        use_affine_time: bool = False,
        context_dim: int | None = None,
        norm_groups: int = 32,
        norm: str = "group",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.resblocks = ResBlock(
            in_channel, out_channel, time_dim, use_affine_time, dropout, norm_groups, norm, dilation
        )
        self.attention = (
            SelfAttention(out_channel, attention_head, attention_scale, norm_groups, norm) if use_attention else None
        )
        self.cross_attention: CrossAttention | None = None
        if use_attention and context_dim is not None:
            self.cross_attention = CrossAttention(out_channel, context_dim, attention_head, norm_groups, norm)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.resblocks(x, time)
        if self.attention is not None:
            x = self.attention(x)
        if self.cross_attention is not None and context is not None:
            x = self.cross_attention(x, context)
        return x
