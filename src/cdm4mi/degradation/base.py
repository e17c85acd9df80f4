"""The contract of every degradation: keys of a configuration, a drawn parameter, the noisy image, its noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

from cdm4mi.degradation.lazy_torch import Tensor, torch
from cdm4mi.errors import UserError
from cdm4mi.section import Section
from cdm4mi.window import IntensityWindow

PERCENT = "standard deviation in percent of the reference, the window's upper end (MR, PET)"
"""How the key ``percent`` of several noises is described."""


@dataclass(frozen=True)
class Frame(IntensityWindow):
    """What [-1, 1] and a pixel mean in one image: its intensity window, and its ``spacing``.

    spacing: millimetres between neighbours along (rows, columns).
    """

    spacing: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(cls, window: IntensityWindow, spacing: tuple[float, float] = (1.0, 1.0)) -> Frame:
        """The frame of an image with this window and pixel size."""
        return cls(window.low, window.high, window.modality, spacing)

    def from_percent(self, percent: float) -> float:
        """Percent of the reference, which is the window's upper end, to physical units."""
        return percent / 100 * self.high


class Degradation(Section, ABC):
    """Makes the condition y of a clean image x0. Decided by a torch.Generator alone; on the device of the image.

    A subclass is a section of the configuration: its fields are the keys beside ``type``, with default, limits and
    description. A key of which a range may be given ("a number, or a pair") has one of the types ``...Range`` of
    ``cdm4mi.section``.
    """

    type: str

    @property
    def whole_slice(self) -> bool:
        """Whether it means something only on the whole slice (projections, k-space): a patch is cut out afterwards."""
        return False

    @property
    def modalities(self) -> tuple[str | None, ...]:
        """Those that it is a model of."""
        return ("CT", "MR", "PT", "RGB", None)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Any:
        """Its parameter for one image, in physical terms, from the number or range of its main key."""

    @abstractmethod
    def apply(self, x0: Tensor, parameter: Any, generator: torch.Generator, frame: Frame) -> Tensor:
        """x0 (..., H, W) on [-1, 1] to y of the same shape, scale and device; y is not clipped."""

    def degrade(self, x0: Tensor, generator: torch.Generator, frame: Frame) -> tuple[Tensor, float]:
        """y of one image and its level: the parameter is drawn, and then the noise."""
        parameter = self.draw(generator)
        y = self.apply(x0, parameter, generator, frame)
        return y, self.level(x0, y, parameter, frame)

    def level(self, x0: Tensor, y: Tensor, parameter: Any, frame: Frame) -> float:
        """Standard deviation of y - x0 on [-1, 1], a model's input: here measured, as a root mean square."""
        return float((y - x0).square().mean().sqrt())

    def correlations(self, x0: Tensor, y: Tensor, parameter: Any, frame: Frame) -> tuple[float, float]:
        """Correlation of y - x0 at pixels that are neighbours: (next row, next column), -1 to 1.

        Here measured, with the mean over the image taken as 0; NaN where y is x0.
        """
        noise = (y - x0).double()
        power = noise.square().mean()
        rows = (noise[..., 1:, :] * noise[..., :-1, :]).mean() / power
        columns = (noise[..., 1:] * noise[..., :-1]).mean() / power
        return float(rows), float(columns)

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """An image whose mean over many pixels is that of x0: here y, for noise of mean zero.

        y: (..., H, W) on [-1, 1]; level: as ``level`` says; zero: what stands for the physical value 0 on [-1, 1].
        """
        return y

    def sigma_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """Least and most standard deviation on [-1, 1] that this adds to an image of ``frame``; frame None: any image.

        None where it cannot be known without the image.
        """
        return None

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """Least and most correlation of neighbouring pixels of what this adds to an image, the mean of both axes.

        None where it cannot be known without the image.
        """
        return None

    def check(self, frame: Frame) -> None:
        """Refuse an image that this is no model of. Raises UserError."""
        if frame.modality not in self.modalities:
            expected = " or ".join(m for m in self.modalities if m)
            raise UserError(f"noise {self.type}: found a {frame.modality} scan, expected {expected}")

    def described(self) -> str:
        """The type and the keys that are set, as text for a person."""
        keys = ((key, value) for key, value in self if key != "type" and value is not None)
        return ", ".join([self.type, *(f"{key} {shown(value)}" for key, value in keys)])


NOISES: dict[str, type[Degradation]] = {}
"""The class of each noise by its ``type``; filled by ``noise``, complete after the import of ``registry``."""

D = TypeVar("D", bound=Degradation)


def noise(cls: type[D]) -> type[D]:
    """Class decorator that registers a noise under the default of its field ``type``."""
    name = cls.model_fields["type"].default
    if name in NOISES:
        raise ValueError(f"noise {name!r}: registered twice")
    NOISES[name] = cls
    return cls


def bounds(value: float | list[float]) -> tuple[float, float]:
    """Least and most of a number or a pair."""
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def draw_log_uniform(value: float | list[float], generator: torch.Generator, floor: float = 1e-4) -> float:
    """A number of a range [least, most], uniform in the logarithm; a range from 0 is drawn from ``floor`` upwards.

    A number, or equal ends, takes nothing from the generator.
    """
    low, high = bounds(value)
    if low == high:
        return low
    u = float(torch.rand((), generator=generator))
    low = min(max(low, floor), high)
    drawn: float = low * (high / low) ** u
    return drawn


def standard_normal(x0: Tensor, generator: torch.Generator) -> Tensor:
    """Unit Gaussian noise of the shape of x0: drawn where the generator is, then moved, so a GPU changes nothing."""
    return torch.randn(x0.shape, generator=generator, device=generator.device).to(x0.device)


def shown(value: Any) -> str:
    """A number, pair or name as text, to three digits."""
    if isinstance(value, list):
        return " to ".join(shown(v) for v in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
