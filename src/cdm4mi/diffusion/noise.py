"""Noise decided by a seed and by which image it is for, and by nothing else: not batch size, order or device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

GOLDEN, MIX = -0x61C8864680B583EB, (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Of SplitMix64, as signed integers: 2^64 over the golden ratio, and the two factors of its finalizer."""


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose stream is decided by the integers of the key (each >= 0) and the kind of the device.

    Zeros at the end of a key say nothing: (3, 1) and (3, 1, 0) have one stream.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state))


class SeededNoise:
    """Unit noise for a batch of images: image i at draw n of the k-th sample has the stream (seed, index[i], n, k).

    shape: (C, H, W) of one image; sample: k; negated: the antithetic noise, -1 times. ``draw(n)`` returns (N, C, H, W)
    float32 on ``device``.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        sample: int = 0,
        negated: bool = False,
    ) -> None:
        self.seed, self.indices, self.shape, self.device, self.sample = seed, list(indices), shape, device, sample
        self.sign = -1.0 if negated else 1.0

    def draw(self, n: int) -> Tensor:
        images = [torch.randn(self.shape, generator=generator(self.seed, i, n, self.sample)) for i in self.indices]
        return self.sign * torch.stack(images).to(self.device)


class KeyedNoise:
    """Random numbers of a batch of images, each decided by a key and its position alone: a counter-based generator.

    keys: (N,) int64, of which one has one stream on every device, whatever else is in the batch. Position n of a stream
    is the n-th number of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195). Integers are the same on
    every device; normal numbers are to the rounding of its logarithm and cosine. ``stream``: another series of the
    same images, up to 255.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    @classmethod
    def of(cls, *key: int, index: Tensor) -> KeyedNoise:
        """The noise of the images of these numbers (N,), decided by the integers of the key (each >= 0) and each."""
        start = np.random.SeedSequence(key).generate_state(1, np.uint64).astype(np.int64)[0]
        return cls(_mixed(int(start) + GOLDEN * index))

    def __getitem__(self, index: Tensor) -> KeyedNoise:
        """The noise of some images of the batch."""
        return KeyedNoise(self.keys[index])

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        """(N, *shape) float32, uniform in [0, 1)."""
        bits = self._bits(math.prod(shape), stream)
        return ((bits >> 40) & 0xFFFFFF).float().mul_(2.0**-24).reshape(-1, *shape)

    def normal(self, *shape: int, stream: int = 0) -> Tensor:
        """(N, *shape) float32, of unit variance: two of each 64 bits (Box and Muller 1958)."""
        count = math.prod(shape)
        bits = self._bits((count + 1) // 2, stream)
        radius = ((bits >> 40) & 0xFFFFFF).float().add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = (bits & 0xFFFFFFFF).float().mul_(2.0**-32 * 2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count].reshape(-1, *shape)

    def _bits(self, count: int, stream: int) -> Tensor:
        counter = torch.arange(stream * 2**40 + 1, stream * 2**40 + 1 + count, device=self.keys.device)
        return _mixed(self.keys[:, None] + GOLDEN * counter)


def _mixed(state: Tensor) -> Tensor:
    """The finalizer of SplitMix64 of int64 numbers, whose products wrap around; it alters ``state``."""
    shifted = torch.empty_like(state)
    for shift, factor in zip((30, 27, 31), (*MIX, 1), strict=True):
        torch.bitwise_right_shift(state, shift, out=shifted)
        state ^= shifted.bitwise_and_(2 ** (64 - shift) - 1)
        if factor != 1:
            state *= factor
    return state
