"""Condition: what is known of an image beside x_t, for a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What is known of each image of a batch beside x_t; None: nothing is.

    y: (N, C or more, H, W) on [-1, 1]: the noisy image, its own channels first, then neighbouring slices or other
    contrasts. Or what a model that is conditioned otherwise takes (tokens, a vector, labels): see ``as_given``. sigma:
    (N,), standard deviation of the noise of y on [-1, 1]. texture: (N, 3), its correlation with the next row and with
    the next column, -1 to 1, and 1 where y is a magnitude (MR), else 0. relative_level: (N, 1, H, W), the noise level
    of each pixel over sigma, None where it is the same everywhere or not known. vector: (N, D) acquisition numbers.
    anchor: (N, C, H, W), the image that path and parameterization rest on: the noisy image, or a regression's mean of
    x0 given y. as_given: y goes to the network as it is, with no channel for its noise and no vector beside.
    """

    y: Any = None
    sigma: Tensor | None = None
    texture: Tensor | None = None
    relative_level: Tensor | None = None
    vector: Tensor | None = None
    anchor: Tensor | None = None
    as_given: bool = False

    def __getitem__(self, index: Tensor | slice) -> Condition:
        """The condition of some images of the batch."""
        return self._map(lambda tensor: tensor[index])

    def windows(self, corners: Sequence[tuple[int, int, int]], height: int, width: int) -> Condition:
        """The condition of windows of height x width pixels, each given by image, first row and first column."""
        index = [i for i, _, _ in corners]

        def cut(tensor: Tensor) -> Tensor:
            return crops(tensor, corners, height, width) if tensor.ndim == 4 else tensor[index]

        return self._map(cut)

    def mirrored(self, axes: tuple[int, ...]) -> Condition:
        """The condition of the images mirrored along these dimensions, -2 for rows and -1 for columns."""
        return self._map(lambda tensor: tensor.flip(axes) if tensor.ndim == 4 else tensor)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        tensors: dict[str, Any] = {name: change(v) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def crops(images: Tensor, corners: Sequence[tuple[int, int, int]], height: int, width: int) -> Tensor:
    """Windows (n, C, height, width) of images (N, C, H, W), each given by image, first row and first column."""
    return torch.stack([images[i, :, row : row + height, column : column + width] for i, row, column in corners])
