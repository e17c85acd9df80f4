"""The contract of every degradation: keys of a configuration, a drawn parameter, the noisy image, its noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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


class RandomNumbers(Protocol):
    """Random numbers of each of N images; ``stream``: another series of the same images."""

    def normal(self, *shape: int, stream: int = 0) -> Tensor:
        """(N, *shape), of unit variance."""

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        """(N, *shape), in [0, 1)."""


class GeneratorNumbers:
    """``RandomNumbers`` of one image, taken from a generator one after another, on a device."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def normal(self, *shape: int, stream: int = 0) -> Tensor:
        return torch.randn((1, *shape), generator=self.generator, device=self.generator.device).to(self.device)

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        return torch.rand((1, *shape), generator=self.generator, device=self.generator.device).to(self.device)


class Degradation(Section, ABC):
    """Makes the condition y of a clean image x0: ``draw`` a parameter, then ``apply`` it.

    A subclass is a section of the configuration: its fields are the keys beside ``type``, with default, limits and
    description. A key that takes a number or a pair [least, most] has one of the types ``PositiveRange``,
    ``NonNegativeRange``, ``ShareRange``, ``FractionRange`` or ``AtLeastOneRange`` of ``cdm4mi.section``.

    All random numbers come from one torch.Generator, which lies on the CPU; y lies on the device of x0.
    """

    type: str

    @property
    def whole_slice(self) -> bool:
        """Whether it needs a whole slice (projections, k-space), from which a patch is cut afterwards; here False."""
        return False

    @property
    def modalities(self) -> tuple[str | None, ...]:
        """The modalities that it is a model of; here all of them, None being a scan that states none."""
        return ("CT", "MR", "PT", "RGB", None)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Any:
        """Draw the parameter of one image, in physical terms, from the ranges of the keys; of several, a tuple."""

    def chosen(self, parameter: Any, frame: Frame) -> tuple[Degradation, Any]:
        """The noise for an image, of several, and its parameter; here this one."""
        return self, parameter

    def all_chosen(self) -> list[Degradation]:
        """Every noise that ``chosen`` may return; here this one."""
        return [self]

    def noise_free(self, x0: Tensor, parameter: Any, frame: Frame) -> Tensor:
        """What the same scanner would show without noise, (..., H, W) on [-1, 1], where it limits detail: here x0.

        Training pairs have it in the place of x0: noise is to be taken away, detail not to be made up.
        """
        return x0

    @abstractmethod
    def apply(self, x0: Tensor, parameter: Any, generator: torch.Generator, frame: Frame) -> Tensor:
        """The noisy image y of x0 (..., H, W) on [-1, 1]: the same shape, scale and device, not clipped.

        parameter: as ``draw`` returns it. frame: turns physical units into [-1, 1] and back.
        """

    def degrade(self, x0: Tensor, generator: torch.Generator, frame: Frame) -> tuple[Tensor, float]:
        """Draw the parameter, then the noise. Returns y and its noise level (``level``)."""
        parameter = self.draw(generator)
        y = self.apply(x0, parameter, generator, frame)
        return y, self.level(x0, y, parameter, frame)

    def level(self, x0: Tensor, y: Tensor, parameter: Any, frame: Frame) -> float:
        """Standard deviation of y - x0 on [-1, 1], which a model is given; here the measured root mean square."""
        return float((y - x0).square().mean().sqrt())

    def stated_level(self, parameter: Any, frame: Frame) -> float | None:
        """Standard deviation of the noise on [-1, 1] by the parameter alone; None where the image decides it too."""
        return None

    def blob_powers(self, parameter: Any, areas: Sequence[float]) -> list[float]:
        """Power of the noise at the frequencies of blobs of these areas in pixels, over that of white noise; here 1."""
        return [1.0] * len(areas)

    def correlations(self, x0: Tensor, y: Tensor, parameter: Any, frame: Frame) -> tuple[float, float]:
        """Correlation, -1 to 1, of the noise y - x0 at neighbouring pixels: (next row, next column).

        Here measured (``measured_correlations``).
        """
        return measured_correlations(x0, y)

    def is_magnitude(self, parameter: Any, frame: Frame) -> bool:
        """Whether y is the magnitude of a complex signal (MR), whose noise in air has a mean above 0."""
        return False

    def unbiased(self, y: Tensor, level: float, zero: float = -1.0) -> Tensor:
        """y corrected for the bias of its noise, so that means over many pixels are those of x0; here y itself.

        y: (..., H, W) on [-1, 1]; level: as ``level`` returns it; zero: the physical value 0, on [-1, 1].
        """
        return y

    def sigma_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """Least and greatest standard deviation on [-1, 1] that this adds to an image.

        frame: of the image; None: of any image. Returns None, as here, where that depends on the image's content.
        """
        return None

    def correlation_range(self, frame: Frame | None = None) -> tuple[float, float] | None:
        """Least and most correlation of neighbouring pixels of what this adds to an image, the mean of both axes.

        None where it cannot be known without the image.
        """
        return None

    def check(self, frame: Frame) -> None:
        """Raise UserError for an image of another modality than ``modalities``."""
        if frame.modality not in self.modalities:
            expected = " or ".join(m for m in self.modalities if m)
            raise UserError(f"noise {self.type}: found a {frame.modality} scan, expected {expected}")

    def described(self) -> str:
        """The type and the keys that are set, as text for a person."""
        keys = ((key, value) for key, value in self if key != "type" and value is not None)
        return ", ".join([self.type, *(f"{key} {shown(value)}" for key, value in keys)])


Numbers = dict[str, float | tuple[float, ...]]
"""Of one image by name."""
Drawn = dict[str, Tensor]
"""Of n images by name, float32: (n,), or (n, k) of tuples."""


def stacked(numbers: Sequence[Numbers]) -> Drawn:
    """The numbers of n images, together."""
    return {name: torch.tensor([one[name] for one in numbers], dtype=torch.float32) for name in numbers[0]}


class BatchedNoise(Degradation):
    """Noise with one formula for a batch, on any device: images of one ``group`` go to ``add`` with their parameters.

    Nothing in ``add`` waits for the device: what is drawn on the CPU comes as tensors, by ``stacked``.
    """

    @property
    def group(self) -> Hashable:
        """Images can be made in one batch, by the noise of any of them, where the groups of their noises are equal."""
        return self.type

    @abstractmethod
    def numbers(self, parameter: Any, frame: Frame) -> Numbers:
        """What ``add`` needs of one image by name, on the scale [-1, 1]."""

    @abstractmethod
    def add(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        """The noisy images y of x0 (n, ..., H, W), not clipped. drawn: their ``numbers``, on the device of x0."""

    def stated_level(self, parameter: Any, frame: Frame) -> float | None:
        sigma = self.numbers(parameter, frame).get("sigma")
        return sigma if isinstance(sigma, float) else None

    def noise_free_batch(self, x0: Tensor, drawn: Drawn) -> Tensor:
        """``noise_free`` of images x0 (n, ..., H, W)."""
        return x0

    def relative_levels(self, x0: Tensor, drawn: Drawn, random: RandomNumbers) -> Tensor:
        """Standard deviation of the noise that ``add`` adds to x0 (n, ..., H, W) over ``levels``, of the same number of
        axes, (n, 1 ..., H, W); here 1 everywhere, (n, 1 ..., 1, 1). Random numbers of a key are those of ``add``."""
        return torch.ones(len(x0), *(1 for _ in x0.shape[1:]), device=x0.device)

    def levels(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        """``level`` of each image, (n,); here measured."""
        return (y - x0).square().flatten(1).mean(1).sqrt()

    def textures(self, x0: Tensor, y: Tensor, drawn: Drawn) -> Tensor:
        """Correlation of each image's noise with the next row and the next column, (n, 2); here measured."""
        return neighbour_correlations(y - x0)

    def apply(self, x0: Tensor, parameter: Any, generator: torch.Generator, frame: Frame) -> Tensor:
        noise, drawn = self._of_one(x0, parameter, frame)
        return noise.add(x0[None], drawn, GeneratorNumbers(generator, x0.device))[0]

    def noise_free(self, x0: Tensor, parameter: Any, frame: Frame) -> Tensor:
        noise, drawn = self._of_one(x0, parameter, frame)
        return noise.noise_free_batch(x0[None], drawn)[0]

    def _of_one(self, x0: Tensor, parameter: Any, frame: Frame) -> tuple[BatchedNoise, Drawn]:
        noise, parameter = self.chosen(parameter, frame)
        assert isinstance(noise, BatchedNoise)
        return noise, {k: v.to(x0.device) for k, v in stacked([noise.numbers(parameter, frame)]).items()}


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """A number of each image, (n,), in the shape that multiplies images (n, ..., H, W)."""
    return values.reshape(-1, *(1 for _ in images.shape[1:]))


def measured_correlations(x0: Tensor, y: Tensor) -> tuple[float, float]:
    """``neighbour_correlations`` of y - x0, (..., H, W), as two numbers."""
    rows, columns = neighbour_correlations((y - x0).double()[None])[0].tolist()
    return rows, columns


def neighbour_correlations(noise: Tensor) -> Tensor:
    """Correlation of noise (n, ..., H, W) at pixels that are neighbours: (next row, next column), -1 to 1, (n, 2).

    The mean over an image is taken as 0. NaN where there is no noise.
    """
    power = noise.square().flatten(1).mean(1)
    rows = (noise[..., 1:, :] * noise[..., :-1, :]).flatten(1).mean(1)
    columns = (noise[..., 1:] * noise[..., :-1]).flatten(1).mean(1)
    return torch.stack([rows, columns], 1) / power[:, None]


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
    """(least, greatest) of a key's value: a number, or the pair [least, most]."""
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


def shown(value: Any) -> str:
    """A number, pair or name as text, to three digits."""
    if isinstance(value, list):
        return " to ".join(shown(v) for v in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
