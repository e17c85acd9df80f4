"""Networks without time, for regression baselines: DnCNN and RED-CNN in place of the UNet."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class PlainNetwork(nn.Module, ABC):
    """A network with the UNet's arguments that uses only the condition (and its noise level), neither x_t nor t.

    in_channel, out_channel: as for the UNet; the first ``out_channel`` channels of the input are x_t and are dropped.
    """

    LEAST_SIDE = 1
    """Of an image that it takes, pixels."""

    def __init__(self, in_channel: int, out_channel: int) -> None:
        super().__init__()
        self.in_channel, self.out_channel = in_channel, out_channel
        self.context_dim: int | None = None
        self.vector_dim: int | None = None
        self.use_affine_time = False
        self.size_multiple = 1

    @abstractmethod
    def residual(self, y: Tensor) -> Tensor:
        """Map the condition's channels (N, in_channel - out_channel, H, W) to the output (N, out_channel, H, W)."""

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        """Map x (N, in_channel, H, W) to (N, out_channel, H, W); t, context and vector are not used."""
        return self.residual(x[:, self.out_channel :])
