"""The same noise on slices with and without lesions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cdm4mi.degradation import Degradation, Frame
from cdm4mi.diffusion.noise import generator

Array = NDArray[Any]


@dataclass(frozen=True)
class PairedNoise:
    """One draw of noise for slices (n, rows, columns) in physical units; key: decides it, with a slice's number.

    noise: None leaves the slices as they are.
    """

    noise: Degradation | None
    frame: Frame
    parameter: Any
    key: tuple[int, ...]

    def noisy(self, clean: Array) -> Array:
        """The slices with noise."""
        return self._each(clean, noisy=True)

    def noise_free(self, clean: Array) -> Array:
        """What the scanner that makes the noise shows without it: the slices, or blurred ones (undersampled)."""
        return self._each(clean, noisy=False)

    def with_lesion(self, noisy: Array, clean: Array, lesion: Array) -> Array:
        """The noisy slices of ``clean + lesion`` with the noise of ``noisy``, which was made of ``clean``.

        A magnitude (Rician noise) is drawn again, with the same random numbers; to others the lesion is added, as it is
        without noise. Photon counts (low_dose_ct, pet) drawn again would be others, though a lesion of 40 HU and 5 mm
        takes 0.4 % of a ray's photons.
        """
        if self.noise is None:
            return noisy + lesion
        if self.noise.is_magnitude(self.parameter, self.frame):
            return self.noisy(clean + lesion)
        return noisy + self.noise_free(clean + lesion) - self.noise_free(clean)

    def _each(self, clean: Array, noisy: bool) -> Array:
        if self.noise is None:
            return clean
        out = np.empty(clean.shape, np.float32)
        for k, image in enumerate(clean):
            x0 = torch.from_numpy(self.frame.normalised(image))
            if noisy:
                y = self.noise.apply(x0, self.parameter, generator(*self.key, k), self.frame)
            else:
                y = self.noise.noise_free(x0, self.parameter, self.frame)
            out[k] = self.frame.physical(y.numpy())
        return out
