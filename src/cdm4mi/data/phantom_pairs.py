"""Clean and noisy phantoms as two tensors, to try a model on in a notebook."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cdm4mi.data.phantoms import PHANTOM_WINDOWS, phantom
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError
from cdm4mi.window import IntensityWindow

MOST = 100_000
_STREAM = 5
"""Second part of the noise's key, which differs from those of training."""


def phantom_pairs(
    n: int, kind: Literal["CT", "MR"] = "MR", *, size: int = 64, sigma: float = 0.2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """n phantoms without and with white Gaussian noise: (x0, y), each (n, 1, size, size) float32 on [-1, 1].

    kind: "CT" or "MR" (``phantom``); sigma: standard deviation of the noise on [-1, 1] (y is not clipped); seed:
    another seed, other phantoms. Pair i of a seed is the same for every n. Raises UserError.
    """
    if not 1 <= n <= MOST:
        raise UserError(f"phantom_pairs: n: found {n}, expected 1 to {MOST}")
    if not sigma >= 0:
        raise UserError(f"phantom_pairs: sigma: found {sigma}, expected at least 0")
    if seed < 0:
        raise UserError(f"phantom_pairs: seed: found {seed}, expected at least 0")
    images = [phantom(kind, seed * MOST + i, size) for i in range(n)]
    norm = IntensityWindow(*PHANTOM_WINDOWS[kind], kind)
    x0 = torch.stack([torch.from_numpy(norm.normalised(image).clip(-1, 1))[None] for image in images])
    noise = [torch.randn(x0.shape[1:], generator=generator(seed, _STREAM, i)) for i in range(n)]
    return x0, x0 + sigma * torch.stack(noise)
