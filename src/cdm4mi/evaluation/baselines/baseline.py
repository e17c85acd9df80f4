"""What baselines share: checks of the image, and the search for settings on validation pairs, never on the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError

Pair = tuple[NDArray[Any], NDArray[Any], float]
"""Noisy, reference, sigma; any units."""
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Baseline(Generic[Settings]):
    """A denoiser of one image (rows, columns), in any units, that is given the noise's standard deviation.

    title: in words. denoise: of an image in float32 and a sigma above 0. default: its settings. grid: every setting
    that the search tries. package, install: the module that it needs, and what to do where there is none.
    """

    title: str
    denoise: Callable[[NDArray[np.float32], float, Settings], NDArray[Any]]
    default: Settings
    grid: Sequence[Settings]
    package: str = ""
    install: str = ""

    def __call__(self, y: NDArray[Any], sigma: float, settings: Settings | None = None) -> NDArray[np.float32]:
        """The denoised image in float32, in the units of ``y`` and ``sigma``; with sigma 0 the image.

        Raises UserError for another shape, values that are not finite, a bad sigma, or a package that is missing.
        """
        y = np.asarray(y, dtype=np.float32)
        if y.ndim != 2:
            raise UserError(f"image has shape {y.shape}, expected (rows, columns)")
        if not np.isfinite(y).all():
            raise UserError("image has pixels that are not finite, expected none")
        if not (np.isfinite(sigma) and sigma >= 0):
            raise UserError(f"sigma is {sigma}, expected a finite number of at least 0")
        if sigma == 0:
            return y
        self.require()
        return self.denoise(y, sigma, self.default if settings is None else settings).astype(np.float32)

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or find_spec(self.package) is not None

    def require(self) -> None:
        """Raises UserError where its package is not installed."""
        if not self.installed:
            raise UserError(f"the baseline {self.title} needs the package {self.package}, found none; {self.install}")

    def tuned(self, pairs: Sequence[Pair]) -> Settings:
        """The settings of the grid with the highest mean PSNR on the pairs.

        The mean of log(MSE) is minimised, which is the mean PSNR whatever the data range.
        """
        if not pairs:
            raise UserError("no validation pair to tune a baseline on, expected at least one")

        def loss(settings: Settings) -> float:
            errors = [np.mean((self(y, sigma, settings) - reference) ** 2) for y, reference, sigma in pairs]
            return float(np.mean(np.log(np.maximum(errors, 1e-30))))

        return min(self.grid, key=loss)
