"""RED-CNN, a baseline network for low-dose CT."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cdm4mi.networks.plain import PlainNetwork

DEPTH, SIDE = 5, 5


class REDCNN(PlainNetwork):
    """Chen et al. (2017, IEEE Trans. Med. Imaging 36): five 5 x 5 convolutions, five transposed, three shortcuts.

    Without padding: every convolution takes four pixels off, and its transposed one puts them back. The paper's last
    shortcut, from the noisy image, is part of the parameterization precond; the ReLU after it is left out, since images
    lie on [-1, 1].
    """

    LEAST_SIDE = DEPTH * (SIDE - 1) + 1
    """Smaller images have nothing left after the convolutions."""

    def __init__(self, in_channel: int = 2, out_channel: int = 1, width: int = 96) -> None:
        super().__init__(in_channel, out_channel)
        widths = [in_channel - out_channel] + [width] * DEPTH
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, SIDE) for a, b in pairwise(widths))
        widths = [width] * DEPTH + [out_channel]
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(a, b, SIDE) for a, b in pairwise(widths))

    def residual(self, y: Tensor) -> Tensor:
        if min(y.shape[-2:]) < self.LEAST_SIDE:
            raise ValueError(f"image of {tuple(y.shape[-2:])} pixels, expected at least {self.LEAST_SIDE} a side")
        kept = []
        for number, layer in enumerate(self.encoder):
            y = torch.relu(layer(y))
            if number in (1, 3):
                kept.append(y)
        for number, layer in enumerate(self.decoder):
            y = layer(y)
            if number in (0, 2):
                y = y + kept.pop()
            if number < DEPTH - 1:
                y = torch.relu(y)
        return y
