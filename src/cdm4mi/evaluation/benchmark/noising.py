"""One noise level on one scan: the same for every method, decided by seed, level and slice alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cdm4mi.degradation import Degradation
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.scans import StudyScan


@dataclass(frozen=True)
class NoisyScan:
    """A scan with noise. array: (N, rows, columns) in physical units; sigma: of each slice, on [-1, 1]."""

    scan: StudyScan
    array: NDArray[Any]
    sigma: list[float]

    @property
    def level(self) -> float:
        """Root mean square of the slices' sigma, on [-1, 1]."""
        return float(np.sqrt(np.mean(np.square(self.sigma))))


def level_key(noise: Degradation) -> str:
    """A noise section as text that is equal for equal noise."""
    return json.dumps(noise.model_dump(mode="json"), sort_keys=True)


def add_noise(scan: StudyScan, noise: Degradation, seed: int) -> NoisyScan:
    """The scan at one noise level. Raises UserError where the noise does not suit the scan.

    Noise of whole slices (projections, k-space) is made of whole slices, and then cut as the scan is: the projections
    of a crop would be those of a thin object. Its sigma is the whole slice's, as in training.
    """
    noise.check(scan.frame)
    if (noise.type == "identity") != (scan.condition is not None):
        found = "real noisy scans" if scan.condition is not None else "no real noisy scan"
        expected = "the one level {type: identity}" if scan.condition is not None else "simulated noise"
        raise UserError(f"levels: found {noise.type} with {found}, expected {expected}")
    condition, which = _number(level_key(noise)), _number("".join(sorted(h.hex() for h in scan.hashes)))
    whole = scan.whole if noise.whole_slice else None
    clean, cut = (scan.target, np.s_[:, :]) if whole is None else (whole, scan.cut)
    images, sigma = [], []
    for k, number in enumerate(scan.slice_numbers):
        gen = generator(seed, condition, which, number)
        x0 = torch.from_numpy(scan.norm.normalised(clean[k]))
        if scan.condition is None:
            y, level = noise.degrade(x0, gen, scan.frame)
        else:
            y = torch.from_numpy(scan.norm.normalised(scan.condition[k]))
            level = noise.level(x0, y, noise.draw(gen), scan.frame)
        sigma.append(level)
        images.append(scan.norm.physical(np.ascontiguousarray(y.numpy()[cut])))
    return NoisyScan(scan, np.stack(images), sigma)


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
