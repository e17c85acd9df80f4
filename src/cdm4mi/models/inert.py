"""Checkpoints that hold objects of other packages (OmegaConf, Lightning), read with inert objects in their place.

Nothing that the file names is imported, looked up or called: torch's restricted unpickler makes tensors and plain
containers as it does with ``weights_only``, and for every other name finds a class made here, which keeps what it is
given and does nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "collections",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "typing",
)
"""Packages whose objects checkpoints of Lightning hold, made by a call too (a path by that of its class, say)."""

BUILTINS = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "str", "tuple", "type"}
"""Types that OmegaConf notes beside its values."""

DEEPEST = 64
"""Levels of containers that ``plain_values`` follows; a file made by hand may hold a list that holds itself."""


class _InertType(type):
    """Classes that stand for a name of the file. One that is no part of a known package cannot be called."""

    callable_: bool
    found: str

    def __call__(cls, *args: Any) -> Any:
        if not cls.callable_:
            raise pickle.UnpicklingError(f"GLOBAL {cls.found} is called")
        return {} if cls.found == "collections.defaultdict" else super().__call__(*args)


class Inert(metaclass=_InertType):
    """An object of the file that was not made: ``found`` is the name of its class, ``state`` what it was to hold."""

    callable_ = False
    found = ""
    state: Any = None

    def __new__(cls, *args: Any) -> Inert:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_inert(file: Path) -> tuple[Any, list[str]]:
    """What torch.load makes of a checkpoint, with ``Inert`` objects for those of other packages, and their names.

    A call of anything outside ``PACKAGES`` and ``BUILTINS`` raises pickle.UnpicklingError, which names it, so that a
    file made to run a function is refused; so does a name of the modules os, posix, nt and sys. A file that is no zip
    archive (as torch.save wrote it before version 1.6) raises ValueError.
    """
    names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    inert: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_InertType(name, (Inert,), {"found": name, "callable_": _known(name)}), name) for name in names
    ]
    with torch.serialization.safe_globals(inert):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False), names


def plain_values(value: Any, depth: int = 0) -> Any:
    """Numbers, texts, lists and mappings of what ``load_inert`` gave; the nodes of OmegaConf give what they hold.

    None for anything else.
    """
    if depth > DEEPEST:
        return None
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) and value.found.startswith("omegaconf.") else {}
        return plain_values(state.get("_content", state.get("_val")), depth + 1)
    if isinstance(value, dict):
        return {key: plain_values(item, depth + 1) for key, item in value.items() if isinstance(key, str)}
    if isinstance(value, (list, tuple)):
        return [plain_values(item, depth + 1) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _known(name: str) -> bool:
    package, _, rest = name.partition(".")
    return package in PACKAGES or (package == "builtins" and rest in BUILTINS)
