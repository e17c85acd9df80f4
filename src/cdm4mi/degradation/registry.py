"""The noises by ``type``: every file of ``noises/`` is loaded, and their classes are the section ``data.noise``."""

from __future__ import annotations

import pkgutil
from bisect import bisect
from collections.abc import Callable
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union

from pydantic import Discriminator, Field, Tag

from cdm4mi.choices import ModalityName
from cdm4mi.degradation import noises
from cdm4mi.degradation.base import NOISES, Degradation, Frame, noise
from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.errors import UserError
from cdm4mi.section import Positive, Section

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


class MixturePart(Section):
    """One noise of a mixture."""

    weight: Positive = Field(1.0, description="its share of the images, relative to the others for their modality")
    modality: ModalityName | None = Field(None, description="none: every one that the noise is a model of")
    noise: NoiseConfig = Field(description="a noise section")

    def suits(self, frame: Frame) -> bool:
        """Whether it is for images of this modality."""
        return self.modality in (None, frame.modality) and frame.modality in self.noise.modalities


class Choice(NamedTuple):
    """What a mixture draws for one image: a number in [0, 1) that chooses the part, and the parameter of every part."""

    u: float
    parameters: tuple[Any, ...]


@noise
class Mixture(Degradation):
    """One part for each image, by the weights of those that suit its modality; image and level are that part's."""

    type: Literal["mixture"] = "mixture"
    parts: Annotated[list[MixturePart], Field(min_length=1)] = Field(
        description="a weight, a noise section, and a modality where it is for one only"
    )

    @property
    def whole_slice(self) -> bool:
        return any(part.noise.whole_slice for part in self.parts)

    def draw(self, generator: torch.Generator) -> Choice:
        """What chooses the part, and the parameter of each: the modality is not known yet."""
        u = float(torch.rand((), generator=generator))
        return Choice(u, tuple(part.noise.draw(generator) for part in self.parts))

    def chosen(self, parameter: Choice, frame: Frame) -> tuple[Degradation, Any]:
        suited = [n for n, part in enumerate(self.parts) if part.suits(frame)]
        shares = list(accumulate(self.parts[n].weight for n in suited))
        n = suited[bisect(shares[:-1], parameter.u * shares[-1])]
        return self.parts[n].noise.chosen(parameter.parameters[n], frame)

    def all_chosen(self) -> list[Degradation]:
        return [noise for part in self.parts for noise in part.noise.all_chosen()]

    def noise_free(self, x0: Tensor, parameter: Choice, frame: Frame) -> Tensor:
        part, its = self.chosen(parameter, frame)
        return part.noise_free(x0, its, frame)

    def apply(self, x0: Tensor, parameter: Choice, generator: torch.Generator, frame: Frame) -> Tensor:
        part, its = self.chosen(parameter, frame)
        return part.apply(x0, its, generator, frame)

    def level(self, x0: Tensor, y: Tensor, parameter: Choice, frame: Frame) -> float:
        part, its = self.chosen(parameter, frame)
        return part.level(x0, y, its, frame)

    def correlations(self, x0: Tensor, y: Tensor, parameter: Choice, frame: Frame) -> tuple[float, float]:
        part, its = self.chosen(parameter, frame)
        return part.correlations(x0, y, its, frame)

    def is_magnitude(self, parameter: Choice, frame: Frame) -> bool:
        part, its = self.chosen(parameter, frame)
        return part.is_magnitude(its, frame)

    def sigma_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """From the least of any part, of those that suit the frame where it is given, to the most."""
        return self._reach(lambda part: part.sigma_range(frame), frame)

    def _reach(
        self, range_of: Callable[[Degradation], tuple[float, float] | None], frame: Frame | None
    ) -> tuple[float, float] | None:
        """What a range of each part that suits the frame reaches over; None where that of one is not known."""
        parts = [part.noise for part in self.parts if frame is None or part.suits(frame)]
        known = [pair for part in parts if (pair := range_of(part)) is not None]
        if not known or len(known) < len(parts):
            return None
        return min(least for least, _ in known), max(most for _, most in known)

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """From the least of any part, of those that suit the frame where it is given, to the most."""
        return self._reach(lambda part: part.correlation_range(frame), frame)

    def check(self, frame: Frame) -> None:
        if not any(part.suits(frame) for part in self.parts):
            raise UserError(f"noise mixture: found a {frame.modality} scan, expected a part for this modality")

    def described(self) -> str:
        return " or ".join(part.noise.described() for part in self.parts)


def _type(value: Any) -> str | None:
    """The type that a noise section names; the default where it names none."""
    found = value.get("type", DEFAULT) if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


if TYPE_CHECKING:
    NoiseConfig = Degradation
else:
    _sections = tuple(Annotated[cls, Tag(name)] for name, cls in {**SIMULATED, **NOISES}.items())
    NoiseConfig = Annotated[Union[_sections], Discriminator(_type)]  # noqa: UP007
    for _class in (Composition, MixturePart, Mixture):
        _class.model_rebuild()
