"""A training that diverged: numbers that are no longer finite end it, and never reach a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cdm4mi.errors import UserError


def check_loss(name: str, loss: Tensor, step: int) -> None:
    """Raise UserError where a loss (a scalar) at the optimizer step ``step`` is not finite."""
    if not torch.isfinite(loss):
        raise UserError(_diverged(f"{name} is {float(loss):g}", step))


def check_weights(weights: Mapping[str, Any], step: int) -> None:
    """Raise UserError where weights after the optimizer step ``step`` hold values that are not finite."""
    for name, value in weights.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            raise UserError(_diverged(f"{name} is not finite", step))


def _diverged(what: str, step: int) -> str:
    return (
        f"the training diverged: {what} at step {step}, expected finite numbers; try a lower training.learning_rate, a "
        "longer warmup, gradient_clip 1, or precision bf16 or 32 in place of fp16"
    )
