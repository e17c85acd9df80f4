"""The Rosinality UNet, whose inputs are an image, times and, optionally, context tokens and a vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cdm4mi.networks.bf16_cpu import UpsampledConvolution
from cdm4mi.networks.blocks import ResBlockWithAttention, TimeEmbedding
from cdm4mi.networks.init import scaled_
from cdm4mi.networks.norms import make_norm, normed_silu


class UNet(nn.Module):
    """x (N, in_channel, H, W) and times t (N,) to (N, out_channel, H, W).

    H and W must be multiples of ``size_multiple`` (fold times 2 for each level after the first). Parameter names are
    those of the widely used implementation, so its checkpoints load (the tests compare with its outputs).

    channel_multiplier: width of each level, in units of channel. attn_strides: strides (1, 2, 4, ...) with attention.
    fold: space to depth by fold at the input and back at the output. context_dim: width of the tokens (N, L,
    context_dim) that blocks with attention also attend to. vector_dim: width of a vector (N, vector_dim) joined to the
    time's embedding, which modulates every norm when use_affine_time is set. norm_groups: groups of every norm, a
    divisor of channel; a norm removes the mean of each group. norm: ``group``, or ``pixel`` (``PixelNorm``).
    attn_middle: attention at the coarsest level, between the ways down and up; without it, without attn_strides and
    with norm ``pixel`` every output pixel depends on its neighbourhood alone. dilation: step
    between the pixels that the second convolution of a residual block sees, for the blocks on the way down, in the
    middle and on the way up (the original work's dilated UNet; the weights have the same shapes).
    """

    def __init__(
        self,
        in_channel: int = 2,
        out_channel: int = 1,
        channel: int = 64,
        channel_multiplier: Sequence[int] = (1, 2, 4),
        n_res_blocks: int = 2,
        attn_strides: Sequence[int] = (4,),
        attn_heads: int = 1,
        use_affine_time: bool = False,
        dropout: float = 0.1,
        fold: int = 1,
        context_dim: int | None = None,
        vector_dim: int | None = None,
        attn_scale: str = "head",
        norm_groups: int = 32,
        norm: str = "group",
        attn_middle: bool = True,
        dilation: Sequence[int] = (1, 1, 1),
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.in_channel, self.out_channel, self.fold = in_channel, out_channel, fold
        self.context_dim, self.vector_dim, self.use_affine_time = context_dim, vector_dim, use_affine_time
        self.gradient_checkpointing = gradient_checkpointing
        self.n_res_blocks, self.levels = n_res_blocks, len(channel_multiplier)
        self.size_multiple = fold * 2 ** (len(channel_multiplier) - 1)
        time_dim = channel * 4

        def block(n_in: int, n_out: int, attention: bool, dilation: int) -> ResBlockWithAttention:
            return ResBlockWithAttention(
                n_in,
                n_out,
                time_dim,
                dropout,
                use_attention=attention,
                attention_head=attn_heads,
                attention_scale=attn_scale,
                use_affine_time=use_affine_time,
                context_dim=context_dim,
                norm_groups=norm_groups,
                norm=norm,
                dilation=dilation,
            )

        self.time = nn.Sequential(
            TimeEmbedding(channel),
            scaled_(nn.Linear(channel, time_dim)),
            nn.SiLU(),
            scaled_(nn.Linear(time_dim, time_dim)),
        )
        self.vector = (
            nn.Sequential(scaled_(nn.Linear(vector_dim, time_dim)), nn.SiLU(), scaled_(nn.Linear(time_dim, time_dim)))
            if vector_dim is not None
            else None
        )

        width = channel
        down: list[nn.Module] = [scaled_(nn.Conv2d(in_channel * fold**2, channel, 3, padding=1))]
        skips = [channel]
        levels = list(enumerate(channel_multiplier))
        for i, multiplier in levels:
            for _ in range(n_res_blocks):
                down.append(block(width, channel * multiplier, 2**i in attn_strides, dilation[0]))
                width = channel * multiplier
                skips.append(width)
            if i < len(levels) - 1:
                down.append(nn.Sequential(scaled_(nn.Conv2d(width, width, 3, stride=2, padding=1))))
                skips.append(width)
        self.down = nn.ModuleList(down)

        self.mid = nn.ModuleList(
            [block(width, width, attn_middle, dilation[1]), block(width, width, False, dilation[1])]
        )

        up: list[nn.Module] = []
        for i, multiplier in reversed(levels):
            for _ in range(n_res_blocks + 1):
                up.append(block(width + skips.pop(), channel * multiplier, 2**i in attn_strides, dilation[2]))
                width = channel * multiplier
            if i > 0:
                up.append(UpsampledConvolution(width))
        self.up = nn.ModuleList(up)

        self.out = nn.Sequential(
            make_norm(norm, norm_groups, width),
            nn.SiLU(),
            scaled_(nn.Conv2d(width, out_channel * fold**2, 3, padding=1), 1e-10),
        )

    def _run(self, layer: nn.Module, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        h: Tensor
        if not isinstance(layer, ResBlockWithAttention):
            h = layer(x)
        elif self.gradient_checkpointing and torch.is_grad_enabled():
            h = checkpoint(layer, x, time, context, use_reentrant=False)
        else:
            h = layer(x, time, context)
        return h

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        if x.shape[-2] % self.size_multiple or x.shape[-1] % self.size_multiple:
            raise ValueError(f"image is {x.shape[-2]} x {x.shape[-1]}, expected multiples of {self.size_multiple}")
        time = self.time(t)
        if self.vector is not None:
            if vector is None:
                raise ValueError("this UNet has vector_dim set and was called without a vector")
            time = time + self.vector(vector)
        h = nn.functional.pixel_unshuffle(x, self.fold)
        skips = []
        for layer in self.down:
            h = self._run(layer, h, time, context)
            skips.append(h)
        for layer in self.mid:
            h = self._run(layer, h, time, context)
        for layer in self.up:
            if isinstance(layer, ResBlockWithAttention):
                h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(layer, h, time, context)
        norm, _, convolution = self.out
        return nn.functional.pixel_shuffle(convolution(normed_silu(norm, h)), self.fold)
