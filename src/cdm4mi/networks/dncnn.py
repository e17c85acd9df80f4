"""DnCNN, a baseline network."""

from __future__ import annotations

from torch import Tensor, nn

from cdm4mi.networks.plain import PlainNetwork


class DnCNN(PlainNetwork):
    """Zhang et al. (2017, IEEE Trans. Image Process. 26), section III: 3 x 3 convolutions, batch norms, ReLUs.

    It learns the residual, as the paper's does: the parameterization precond adds it to the noisy image. 17 layers of
    64 channels are the paper's for one noise level.
    """

    def __init__(self, in_channel: int = 2, out_channel: int = 1, depth: int = 17, width: int = 64) -> None:
        super().__init__(in_channel, out_channel)
        layers: list[nn.Module] = [nn.Conv2d(in_channel - out_channel, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, out_channel, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def residual(self, y: Tensor) -> Tensor:
        noise: Tensor = self.layers(y)
        return noise
