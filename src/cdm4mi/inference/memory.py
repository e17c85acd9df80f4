"""How many pixels a network is given at a time, by the memory that a restoration may take."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cdm4mi.errors import UserError

SHARE = 0.5
"""Of the memory that is free, what a restoration takes where nothing is asked for."""
WORKSPACE = 2.0
"""Memory that a network takes over that of its tensors: what libraries reorder and keep."""
SLABS = 200
"""Bytes for each pixel of the slabs that are prepared, restored and written at the same time."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def bytes_of(size: int | str) -> int:
    """Bytes of a size such as 2G, 800M or 1.5GiB (powers of 1024). Raises UserError for what is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(size), re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise UserError(f"`memory`: found {size!r}, expected a size such as 2G or 800M")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def pixels_in(memory: int | None, device: torch.device, call: Callable[[], object], pixels: int, window: int) -> int:
    """How many pixels the network may be given at a time within ``memory`` bytes of the process (``SHARE`` if None).

    call: runs the network on ``pixels`` pixels; window: pixels of the smallest image that it can be given. On a GPU,
    ``SHARE`` of the device's free memory counts too. Raises UserError where the given memory is too small for a window.
    """
    of_network = WORKSPACE * peak_bytes(call) / pixels
    taken = psutil.Process().memory_info().rss
    free = memory - taken if memory is not None else SHARE * psutil.virtual_memory().available
    most = free / (SLABS + (of_network if device.type != "cuda" else 0))
    if device.type == "cuda":
        most = min(most, SHARE * torch.cuda.mem_get_info(device)[0] / of_network)
    if memory is not None and most < window:
        needed = (taken + free / most * window if most > 0 else taken) / 2**20
        raise UserError(
            f"`memory`: found {memory / 2**20:.0f} MiB, expected more than {needed:.0f} MiB, or a less `tile`"
        )
    return max(window, int(most))


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that the tensors which a function makes take at a time."""
    tensors = _Tensors()
    with tensors:
        call()
    return tensors.most


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that the memory of a device does not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


class _Tensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return made

    def _freed(self, size: int) -> None:
        self.now -= size
