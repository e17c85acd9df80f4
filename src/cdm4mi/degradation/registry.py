"""The noises by ``type``: every file of ``noises/`` is loaded, and their classes are the section ``data.noise``."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag

from cdm4mi.degradation import noises
from cdm4mi.degradation.base import NOISES, Degradation, Frame, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch

DEFAULT = "gaussian"
"""The type of a noise section that names none."""
for _file in pkgutil.iter_modules(noises.__path__):
    import_module(f"{noises.__name__}.{_file.name}")

SIMULATED = {name: NOISES[name] for name in sorted(NOISES, key=lambda n: (n != DEFAULT, n)) if name != "identity"}
"""The noises that a user can name, the default first; several are written with ``+``."""


@noise
class Composition(Degradation):
    """Several, one after another: the first acts on the clean image, each other on what came before it."""

    type: Literal["composition"] = "composition"
    parts: Annotated[list[NoiseConfig], Field(min_length=1)] = Field(description="a noise section each, in order")

    @property
    def whole_slice(self) -> bool:
        return any(part.whole_slice for part in self.parts)

    def draw(self, generator: torch.Generator) -> tuple[Any, ...]:
        """The parameter of each part."""
        return tuple(part.draw(generator) for part in self.parts)

    def apply(self, x0: Tensor, parameter: tuple[Any, ...], generator: torch.Generator, frame: Frame) -> Tensor:
        y = x0
        for part, its in zip(self.parts, parameter, strict=True):
            y = part.apply(y, its, generator, frame)
        return y

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """Each part undone, the last first; the level is that of all together."""
        for part in reversed(self.parts):
            y = part.unbiased(y, level, zero)
        return y

    def check(self, frame: Frame) -> None:
        for part in self.parts:
            part.check(frame)

    def described(self) -> str:
        return " + ".join(part.described() for part in self.parts)


def _type(value: Any) -> str | None:
    """The type that a noise section names; the default where it names none."""
    found = value.get("type", DEFAULT) if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


if TYPE_CHECKING:
    NoiseConfig = Degradation
else:
    _sections = tuple(Annotated[cls, Tag(name)] for name, cls in {**SIMULATED, **NOISES}.items())
    NoiseConfig = Annotated[Union[_sections], Discriminator(_type)]  # noqa: UP007
    Composition.model_rebuild()
