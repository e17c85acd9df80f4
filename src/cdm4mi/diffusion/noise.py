"""Noise decided by a seed and by which image it is for, and by nothing else: not batch size, order or device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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
