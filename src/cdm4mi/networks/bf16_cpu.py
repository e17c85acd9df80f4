"""What a CPU with bf16 instructions computes faster in bf16 by other operations than torch's own, to rounding the same.

Attention, the convolution of an upsampled map, and dropout. In fp32 and on other devices torch's operations are kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdm4mi.networks.init import scaled_

SCORES = 2**24
"""Bytes of attention's scores at a time: more would not stay in the cache."""
LEAST_WIDTH = 64
"""Channels of an attention head from which matrix products are faster than the fused kernel."""


def bf16_instructions() -> set[str]:
    """Which instructions the CPU has for products in bf16: ``avx512_bf16``, ``amx_bf16``, or none of them."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older versions of torch
    return {name for name in ("avx512_bf16", "amx_bf16") if found.get(name)}


def faster(x: Tensor) -> bool:
    """Whether the operations below are faster for x than torch's own: measured with AVX-512 BF16, and not with AMX.

    Not where torch compiles or exports a network, which has other ways to make it fast.
    """
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bf16_instructions() == {"avx512_bf16"}


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v for q (N, heads, L, d), k and v (N, heads, M, d): (N, heads, L, d).

    scale: 1 / sqrt(d) if None. The memory is linear in L and M: by torch's fused kernel, or by matrix products for
    some queries at a time, which take half as long for heads of 256 channels and round the scores to bf16, where the
    kernel has them in float32. A gradient would need all scores, so it goes through products only where these are few.
    """
    width, heads = q.shape[-1], q.shape[0] * q.shape[1]
    row = k.shape[2] * q.element_size()
    fits = heads * q.shape[2] * row <= SCORES
    learnt = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if not faster(q) or width < LEAST_WIDTH or (learnt and not fits):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scale = width**-0.5 if scale is None else scale
    shape, nothing = q.shape, q.new_zeros(())
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    if fits:
        scores = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=scale)
        return torch.bmm(torch.softmax(scores, -1), v).view(shape)
    out, rows = q.new_empty(q.shape), max(1, SCORES // row)
    for head in range(heads):
        for first in range(0, q.shape[1], rows):
            block = slice(first, first + rows)
            scores = torch.addmm(nothing, q[head, block], k[head].T, beta=0, alpha=scale)
            torch.mm(torch.softmax(scores, -1, out=scores), v[head], out=out[head, block])
    return out.view(shape)


class UpsampledConvolution(nn.Sequential):
    """A map (N, C, H, W) with each pixel as 2 x 2, then a 3 x 3 convolution of it: (N, C, 2H, 2W).

    A pixel of the map meets several of the 9 weights at once. With their sums as weights, the same is a transposed
    convolution of the map, 4 x 4 with stride 2, of 4 products for an output pixel and a pair of channels in place of 9.
    """

    def __init__(self, channel: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"), scaled_(nn.Conv2d(channel, channel, 3, padding=1))
        )

    def forward(self, x: Tensor) -> Tensor:
        convolution = self[1]
        assert isinstance(convolution, nn.Conv2d)
        if not faster(x):
            out: Tensor = convolution(self[0](x))
            return out
        weight = convolution.weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
        sums = F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=1)
        assert convolution.bias is not None
        bias = convolution.bias.to(x.dtype)[:, None, None]  # added here, as its gradient is slow with the convolution's
        return F.conv_transpose2d(x, sums, stride=2, padding=1).add_(bias)


class Dropout(nn.Dropout):
    """``nn.Dropout``, whose mask takes 16 random bits an element of torch's global stream: a sixth of the time."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and 0 < self.p < 1 and faster(x)):
            return super().forward(x)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = torch.ge(bits, dropped - 2**15, out=bits)[: x.numel()]  # 1 or 0
        factor = torch.tensor(2**16 / (2**16 - dropped), dtype=x.dtype)
        mask = kept.mul_(factor.view(torch.int16)).view(x.dtype)  # the factor's bits, or none of them
        return x * mask.as_strided(x.shape, torch.empty_like(x).stride())  # in the order in which x lies in memory
