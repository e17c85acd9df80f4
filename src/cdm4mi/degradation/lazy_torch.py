"""torch, loaded at its first use: the keys of the noises are read for the help of commands, which is there at once.

``from cdm4mi.degradation.lazy_torch import F, Tensor, torch`` in every file of this folder, in place of torch's own
imports. ``Tensor`` stands in annotations alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
    from torch.nn import functional

    F = functional
else:
    from importlib import import_module
    from typing import Any as Tensor  # noqa: F401

    class _Lazy:
        def __init__(self, name):
            self._name = name

        def __getattr__(self, attribute):
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)  # which is found without this function from now on
            return value

    torch, F = _Lazy("torch"), _Lazy("torch.nn.functional")
