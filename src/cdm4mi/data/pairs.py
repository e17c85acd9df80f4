"""Training pairs: a clean patch and its degraded condition, each decided by a seed and an index alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cdm4mi.data.acquisition import acquisition_vector
from cdm4mi.data.sources import Patient
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError

Pair = dict[str, Tensor]
TRIES = 8
_VALIDATION = 1
_TRAINING = 0


class PairDataset(Dataset[Pair]):
    """Pair ``i`` is ``{"x0": (1, S, S), "y": (1, S, S), "level": ()}`` on [-1, 1], for every i >= 0.

    A source is drawn by ``source_weights``, then a patient, a slice and a place whose patch is foreground by at least
    ``least_foreground`` (the best of a few draws otherwise), flipped and turned at random; then the degradation's level
    and noise. With ``acquisition`` names there is a ``vector`` (D,) too. The result depends on (seed, i) alone: not on
    workers, batches or what was read before.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        degradation: Degradation,
        size: int,
        seed: int,
        *,
        least_foreground: float = 0.1,
        length: int = 2**62,
        validation: bool = False,
        acquisition: Sequence[str] = (),
    ) -> None:
        for patient in patients:
            for image in patient.slices:
                if min(image.shape) < size:
                    raise UserError(
                        f"patient {patient.name}: a slice is {image.shape[0]} x {image.shape[1]}, "
                        f"expected at least image_size = {size}"
                    )
        self.degradation, self.size, self.seed = degradation, size, seed
        self.least_foreground, self.length = least_foreground, length
        self.acquisition = list(acquisition)
        self.stream = _VALIDATION if validation else _TRAINING
        sources: dict[str, list[Patient]] = {}
        for patient in patients:
            sources.setdefault(patient.source, []).append(patient)
        self.sources = [sources[name] for name in sorted(sources)]
        self.source_weights = source_weights({name: len(sources[name]) for name in sources})

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Pair:
        rng = np.random.default_rng([self.seed, self.stream, i])
        gen = generator(self.seed, self.stream, i)
        patch, patient = self._patch(rng)
        x0 = torch.from_numpy(patch)[None]
        frame = Frame(-1.0, 1.0, patient.spacing[1:])
        parameter = self.degradation.draw(gen)
        y = self.degradation.apply(x0, parameter, gen, frame)
        level = self.degradation.level(x0, y, parameter, frame)
        pair = {"x0": x0, "y": y, "level": torch.tensor(level)}
        if self.acquisition:
            pair["vector"] = torch.tensor(acquisition_vector(self.acquisition, level, patient.spacing))
        return pair

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, Patient]:
        best, owner, best_share = None, None, -1.0
        for _ in range(TRIES):
            group = self.sources[rng.choice(len(self.sources), p=self.source_weights)]
            patient = group[rng.integers(len(group))]
            k = rng.integers(len(patient.slices))
            image, mask = patient.slices[k], patient.foregrounds[k]
            row, col = (int(rng.integers(n - self.size + 1)) for n in image.shape)
            place = np.s_[row : row + self.size, col : col + self.size]
            share = float(mask[place].mean())
            if share > best_share:
                best, owner, best_share = image[place], patient, share
            if share >= self.least_foreground:
                break
        assert best is not None and owner is not None
        turned = np.rot90(best, int(rng.integers(4)))
        patch = np.ascontiguousarray(turned[:, ::-1] if rng.integers(2) else turned)
        return patch.astype(np.float32), owner


def source_weights(patients: Mapping[str, int]) -> np.ndarray:
    """How often each source (sorted by name, "CT-..." or "MR-...") is drawn, given its number of patients.

    The modalities share evenly; within one, a source counts as the root of its patients, so that a large collection
    of one protocol neither fills the batch nor is drowned by single scans.
    """
    names = sorted(patients)
    modality = [name.split("-")[0] for name in names]
    root = np.sqrt([patients[name] for name in names])
    total = {m: root[[n == m for n in modality]].sum() for m in modality}
    weights = np.array([r / total[m] for r, m in zip(root, modality, strict=True)])
    return weights / weights.sum()


class OrderedFrom(Sampler[int]):
    """Indices start, start + stride, ... without end: the data order of a run that has already taken ``start`` pairs.

    stride: the number of processes that share the order, each starting at its own place.
    """

    def __init__(self, start: int, stride: int = 1) -> None:
        self.start, self.stride = start, stride

    def __iter__(self) -> Iterator[int]:
        i = self.start
        while True:
            yield i
            i += self.stride
