"""What a user's own loop gives a model, checked before the network sees it: one line in place of torch's errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cdm4mi.config.yaml_text import shown
from cdm4mi.errors import UserError


def check_images(where: str, images: Any, weights: nn.Module) -> None:
    """Raise UserError where a tensor (N, C, H, W) has other numbers or sides than a network can take.

    where: class and argument; weights: the network in its wrapper, whose type of number the images have to have
    (float32 may also stand for less), and whose ``size_multiple`` divides their sides.
    """
    if not isinstance(images, Tensor) or images.ndim != 4:
        return
    own = next((p.dtype for p in weights.parameters()), images.dtype)
    if not images.is_floating_point() or images.dtype.itemsize > own.itemsize:
        found, expected = (str(dtype).removeprefix("torch.") for dtype in (images.dtype, own))
        raise UserError(f"{where}: found numbers of type {found}, expected {expected}")
    check_size(where, images.shape[2:], weights)


def check_size(where: str, size: tuple[int, ...], weights: nn.Module) -> None:
    """Raise UserError where rows and columns are no multiples of the network's ``size_multiple``."""
    multiple = getattr(getattr(weights, "diffusion_model", None), "size_multiple", 1)
    if any(side < 1 or side % multiple for side in size):
        found = " x ".join(map(str, size))
        raise UserError(f"{where}: found {found} pixels, expected sides that are multiples of {multiple}")


def check_index(where: str, index: Any, count: int) -> None:
    """Raise UserError where ``index`` is neither none nor whole numbers (count,)."""
    if index is None:
        return
    if not isinstance(index, Tensor):
        raise UserError(f"{where}: found {shown(index)}, expected a tensor of {count} whole numbers")
    if index.shape != torch.Size((count,)) or index.is_floating_point():
        kind = str(index.dtype).removeprefix("torch.")
        raise UserError(f"{where}: found {kind} of shape {tuple(index.shape)}, expected whole numbers ({count},)")


def check_sigma(where: str, sigma: float | Tensor | None) -> None:
    """Raise UserError for a level below 0 or none at all; levels on a GPU, which would have to be waited for, pass."""
    values = torch.as_tensor(0.0 if sigma is None else sigma)
    if values.device.type == "cpu" and not bool((values >= 0).all()):
        raise UserError(f"{where}: found {float(values.min()):g}, expected at least 0")
