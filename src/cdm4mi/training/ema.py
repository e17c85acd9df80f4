"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn


class EMAState(TypedDict):
    """What a checkpoint holds of an average: float32 weights by name, and the number of updates."""

    weights: dict[str, Tensor]
    updates: int


class EMA:
    """Averages of a module's parameters, ema <- d ema + (1 - d) weight, once for each call of ``update()``.

    d = ``decay``, or min(decay, (1 + n) / (10 + n)) at the n-th update with ``warmup``, so that a short run is not
    held at its start. Buffers are not averaged. Averages are float32 on the module's device. A loop without
    Lightning has it too; torch's ``AveragedModel`` copies the weights at its first update in place of averaging them.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999, warmup: bool = True) -> None:
        self.module, self.decay, self.warmup = module, decay, warmup
        self.restart()

    def restart(self) -> None:
        """Begin anew at the weights that the module has now (after others were loaded into it)."""
        self.updates = 0
        self._learnt = dict(self.module.named_parameters())  # looked up once: the module may have hundreds
        self.weights = {name: p.detach().clone().float() for name, p in self._learnt.items()}

    def decay_at(self, n: int) -> float:
        """d of the n-th update (n from 1)."""
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the module's weights: call once an optimizer step."""
        self.updates += 1
        rest = 1 - self.decay_at(self.updates)
        current = [p.detach().float() for p in self._learnt.values()]
        averages = [self.weights[name].to(p.device) for name, p in self._learnt.items()]
        torch._foreach_lerp_(averages, current, rest)
        self.weights = dict(zip(self._learnt, averages, strict=True))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the module has the averaged weights; after it, its current again, also after an error."""
        current = {name: p.detach().clone() for name, p in self._learnt.items()}
        self._copy(self.weights)
        try:
            yield
        finally:
            self._copy(current)

    @torch.no_grad()
    def _copy(self, weights: dict[str, Tensor]) -> None:
        for name, p in self._learnt.items():
            p.copy_(weights[name].to(p.device))

    def state_dict(self) -> EMAState:
        """Averages and count, for a checkpoint."""
        return {"weights": {k: v.cpu() for k, v in self.weights.items()}, "updates": self.updates}

    def load_state_dict(self, state: EMAState) -> None:
        """The inverse of ``state_dict``."""
        self.weights = {k: v.clone() for k, v in state["weights"].items()}
        self.updates = int(state["updates"])
