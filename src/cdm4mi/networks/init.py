"""The initialisation of the network: variance scaling, fan average, uniform."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def scaled_(layer: Layer, scale: float = 1.0) -> Layer:
    """Uniform weights of variance 2 scale / (fan_in + fan_out), zero biases; a tiny scale starts it near 0."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
