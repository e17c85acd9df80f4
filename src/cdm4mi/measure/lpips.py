"""LPIPS: distance of two images in the features of a network made for photographs, whose weights the user supplies."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from cdm4mi.errors import UserError

CONVOLUTIONS = {0: (64, 3, 11, 4, 2), 3: (192, 64, 5, 1, 2), 6: (384, 192, 3, 1, 1), 8: (256, 384, 3, 1, 1)}
CONVOLUTIONS |= {10: (256, 256, 3, 1, 1)}
"""AlexNet's convolutions by number in torchvision's ``features``: channels out and in, side, stride, padding."""
POOLED_BEFORE = (3, 6)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of red, green and blue, as in version 0.1."""
EPSILON = 1e-10
LEAST_SIDE = 32


class Lpips:
    """LPIPS of Zhang et al. (2018), version 0.1 on AlexNet.

    The features of a pixel are normalised to unit length; their squared differences are weighted by channel, averaged
    over the image and summed over the five convolutions.

    backbone: weights by torchvision's names, ``features.0.weight`` and so on (others are ignored); linear: LPIPS's
    weights, ``lin0.model.1.weight`` to ``lin4``. Raises UserError for a weight that is missing or of another shape.
    """

    def __init__(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        self.layers, self.weights = [], []
        for layer, (number, (out, into, side, stride, padding)) in enumerate(CONVOLUTIONS.items()):
            name = f"features.{number}"
            weight = _weight(backbone, f"{name}.weight", (out, into, side, side))
            self.layers.append((number, weight, _weight(backbone, f"{name}.bias", (out,)), stride, padding))
            self.weights.append(_weight(linear, f"lin{layer}.model.1.weight", (1, out, 1, 1)))

    @torch.no_grad()
    def __call__(self, x: NDArray[Any], ref: NDArray[Any]) -> float:
        """Distance of two grey images (rows, columns) on [-1, 1], at least 32 x 32; 0 for equal images."""
        if x.shape != ref.shape or x.ndim != 2 or min(x.shape) < LEAST_SIDE:
            raise UserError(f"LPIPS of shapes {x.shape} and {ref.shape}, expected two equal ones of at least 32 x 32")
        both = torch.from_numpy(np.stack([x, ref]).astype(np.float32))[:, None].expand(-1, 3, -1, -1)
        both = (both - torch.tensor(SHIFT).view(3, 1, 1)) / torch.tensor(SCALE).view(3, 1, 1)
        total = 0.0
        for (number, weight, bias, stride, padding), linear in zip(self.layers, self.weights, strict=True):
            if number in POOLED_BEFORE:
                both = F.max_pool2d(both, 3, 2)
            both = F.relu(F.conv2d(both, weight, bias, stride, padding))
            unit = both / (both.square().sum(1, keepdim=True).sqrt() + EPSILON)
            total += float(F.conv2d((unit[:1] - unit[1:]).square(), linear).mean())
        return total


def read_lpips(backbone: Path, linear: Path) -> Lpips:
    """LPIPS with the weights of two files, of safetensors or PyTorch; nothing in them is executed."""
    try:
        return Lpips(_read(backbone), _read(linear))
    except UserError as error:
        raise UserError(f"lpips: {backbone.name}, {linear.name}: {error}") from None


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path.name} cannot be read ({type(error).__name__}), expected a file of weights") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path.name} holds a {type(content).__name__}, expected weights by name")
    return content


def _weight(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = weights.get(name)
    if found is None or tuple(found.shape) != shape:
        has = "nothing" if found is None else f"the shape {tuple(found.shape)}"
        raise UserError(f"{name}: found {has}, expected the shape {shape}")
    return found.float()
