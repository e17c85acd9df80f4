"""Training pairs: a clean patch and its degraded condition, each decided by a seed and an index alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.acquisition import acquisition_vector
from cdm4mi.data.augment import Change, Turn, draw_change, draw_shrink, draw_turn
from cdm4mi.data.patient import Patient, Plane
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.degradation.base import measured_correlations
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError

Pair = dict[str, Tensor]
Place = tuple[slice, slice]
TRIES = 8
WHOLE: Place = np.s_[:, :]
PATCHES_PER_SLICE = 16
"""Patches that share one noisy slice, where the noise is made of whole slices (of projections, say) and costs time."""
_VALIDATION = 1
_TRAINING = 0
_WHOLE = 1
"""Third part of a block's key: its random numbers are not those of the pair of the same number."""
_NEIGHBOUR = 2
"""After a pair's or block's key: the noise of a slice beside it is not its own."""
_JITTER, _TEXTURE_JITTER = 3, 4
"""After a pair's key: how wrong its noise level is told, and its texture."""


@dataclass
class _Slice:
    """A clean slice (C, H, W) that is kept with its condition and level, its patient and its foreground."""

    patient: Patient
    foreground: Plane
    change: Change
    x0: Tensor
    y: Tensor
    level: float
    magnitude: bool


class PairDataset(Dataset[Pair]):
    """Pair ``i`` is ``{"x0": (C, S, S), "y": (C + further, S, S), "sigma": (), "index": i}`` on [-1, 1], for i >= 0.

    A source is drawn by ``source_weights``, then a patient, a slice and a place whose patch is foreground by at least
    ``least_foreground`` (the best of a few draws otherwise), flipped and turned at random; then the degradation's
    parameter and noise. With ``acquisition`` names there is a ``vector`` (D,) too, with ``texture`` a ``texture`` (3,):
    correlation of the noise with the next row and the next column, and 1 for a magnitude. Patients with ``conditions``
    give y from them, at the same place. Of the channels of y the noisy image's own come first, then those of its
    neighbours (below to above, with the same parameter and noise of their own) and of other contrasts, where patients
    have them.
    The result depends on (seed, i) alone: not on workers, batches or earlier pairs.

    patches_per_slice: so many pairs in a row, beginning at its multiples, share patient, slice, parameter and the noise
    of the whole slice, and draw a place each. None: 16 where the degradation needs whole slices, else 1.
    slices_mixed: so many such slices take turns, pair by pair, so that a batch holds more than one.
    augment: what is varied; by default flips and quarter turns. Validation pairs are only flipped and turned by
    quarters, and changes of the clean image alone are refused beside real noisy scans. channels: C. level_jitter:
    standard deviation of the logarithm of what a training pair's level is multiplied by; texture_jitter: standard
    deviation of what is added to a training pair's correlations, and share of those told the opposite about magnitude.
    Validation tells both exactly.
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
        patches_per_slice: int | None = None,
        slices_mixed: int = 1,
        augment: AugmentConfig | None = None,
        channels: int = 1,
        level_jitter: float = 0.0,
        texture: bool = False,
        texture_jitter: float = 0.0,
    ) -> None:
        for patient in patients:
            for image in patient.slices:
                rows, columns = image.shape[-2:]
                found = image.shape[0] if len(image.shape) == 3 else 1
                if found != channels:
                    raise UserError(
                        f"patient {patient.name}: an image has {found} channel{'s' if found > 1 else ''}, "
                        f"expected model.channels = {channels}"
                    )
                if min(rows, columns) < size:
                    raise UserError(
                        f"patient {patient.name}: a slice is {rows} x {columns}, expected at least image_size = {size}"
                    )
        self.augment = augment or AugmentConfig()
        _check_conditions(patients, degradation, self.augment)
        self.degradation, self.size, self.seed = degradation, size, seed
        self.least_foreground, self.length = least_foreground, length
        self.acquisition = list(acquisition)
        self.stream = _VALIDATION if validation else _TRAINING
        self.block = patches_per_slice or (PATCHES_PER_SLICE if degradation.whole_slice else 1)
        self.mixed = slices_mixed
        self.level_jitter = 0.0 if validation else level_jitter
        self.texture, self.texture_jitter = texture, 0.0 if validation else texture_jitter
        self.whole = degradation.whole_slice or self.block > 1
        self._kept: dict[int, _Slice] = {}
        sources: dict[str, list[Patient]] = {}
        for patient in patients:
            sources.setdefault(patient.source, []).append(patient)
        self.sources = [sources[name] for name in sorted(sources)]
        self.source_weights = source_weights({name: len(sources[name]) for name in sources})

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Pair:
        rng = np.random.default_rng([self.seed, self.stream, i])
        if self.whole:
            kept = self._slice(i // (self.block * self.mixed) * self.mixed + i % self.mixed)
            patient, level, magnitude, change = kept.patient, kept.level, kept.magnitude, kept.change
            place = self._place(rng, kept.foreground)[0]
            turn = draw_turn(self.augment, rng)
            x0, y = (turn(image[(..., *place)]) for image in (kept.x0, kept.y))
            correlations = measured_correlations(x0, y[: len(x0)])
        else:
            gen = generator(self.seed, self.stream, i)
            shrink = self._shrink(rng)
            patient, k, place = self._patch(rng, shrink)
            turn = draw_turn(self.augment, rng)
            change = self._change(rng, patient.frame(k), self._fitting(patient.foregrounds[k], shrink))
            key = (self.seed, self.stream, i)
            x0, y, level, correlations, magnitude = self._degraded(patient, k, place, gen, turn, change, key)
        if self.level_jitter > 0:
            normal = torch.randn((), generator=generator(self.seed, self.stream, i, _JITTER), dtype=torch.float64)
            level *= math.exp(self.level_jitter * float(normal))
        pair = {"x0": x0, "y": y, "sigma": torch.tensor(level), "index": torch.tensor(i)}
        if self.texture:
            pair["texture"] = self._told_texture(correlations, magnitude, i)
        if self.acquisition:
            spacing = (patient.spacing[0], *change.spacing(patient.spacing[1:]))
            pair["vector"] = torch.tensor(acquisition_vector(self.acquisition, level, spacing))
        return pair

    def _slice(self, block: int) -> _Slice:
        """The slice of a block of pairs, degraded as a whole; those that take turns with it are kept."""
        if block not in self._kept:
            rng = np.random.default_rng([self.seed, self.stream, _WHOLE, block])
            key = (self.seed, self.stream, _WHOLE, block)
            gen = generator(*key)
            shrink = self._shrink(rng)
            patient, k = self._patient_and_slice(rng)
            change = self._change(rng, patient.frame(k), self._fitting(patient.foregrounds[k], shrink))
            x0, y, level, _, magnitude = self._degraded(patient, k, WHOLE, gen, lambda image: image, change, key)
            self._kept = {b: s for b, s in self._kept.items() if b // self.mixed == block // self.mixed}
            self._kept[block] = _Slice(
                patient, change.foreground(patient.foregrounds[k]), change, x0, y, level, magnitude
            )
        return self._kept[block]

    def _told_texture(self, correlations: tuple[float, float], magnitude: bool, i: int) -> Tensor:
        """The texture of pair i as the network is told it, (3,)."""
        texture = torch.tensor([*correlations, float(magnitude)]).nan_to_num()
        if self.texture_jitter > 0:
            gen = generator(self.seed, self.stream, i, _TEXTURE_JITTER)
            texture[:2] += self.texture_jitter * torch.randn(2, generator=gen)
            if float(torch.rand((), generator=gen)) < self.texture_jitter:
                texture[2] = 1 - texture[2]
        return texture

    def _degraded(
        self,
        patient: Patient,
        k: int,
        place: Place,
        gen: torch.Generator,
        turn: Turn,
        change: Change,
        key: tuple[int, ...],
    ) -> tuple[Tensor, Tensor, float, tuple[float, float], bool]:
        """Clean image (C, H, W), condition (C + further, H, W), level and texture at a place of slice k."""

        def cut(plane: Plane, clean: bool = False) -> Tensor:
            image = _tensor(change.cut(plane, place))
            return turn(change.intensity(image) if clean else image)

        frame = patient.frame(k)
        frame = replace(frame, spacing=change.spacing(frame.spacing))
        x0 = cut(patient.slices[k], clean=True)
        parameter = self.degradation.draw(gen)
        if patient.conditions is not None:
            y = cut(patient.conditions[k])
        else:
            x0 = self.degradation.noise_free(x0, parameter, frame)
            y = self.degradation.apply(x0, parameter, gen, frame)
        images = [y]
        made = {id(patient.slices[k]): y}  # a slice that is repeated has the one noise
        for n, plane in enumerate(patient.neighbours[k] if patient.neighbours is not None else ()):
            if patient.conditions is not None:
                images.append(cut(plane))
                continue
            if id(plane) not in made:
                own = generator(*key, _NEIGHBOUR, n)
                made[id(plane)] = self.degradation.apply(
                    self.degradation.noise_free(cut(plane, clean=True), parameter, frame), parameter, own, frame
                )
            images.append(made[id(plane)])
        images += [cut(plane) for plane in (patient.contrasts[k] if patient.contrasts is not None else ())]
        level = self.degradation.level(x0, y, parameter, frame)
        correlations = self.degradation.correlations(x0, y, parameter, frame)
        magnitude = self.degradation.is_magnitude(parameter, frame)
        return _channels(x0), torch.cat([_channels(image) for image in images]), level, correlations, magnitude

    def _shrink(self, rng: np.random.Generator) -> int:
        """The shrink of a training patch; validation images stay as they are."""
        return 1 if self.stream == _VALIDATION else draw_shrink(self.augment, rng)

    def _change(self, rng: np.random.Generator, frame: Frame, shrink: int) -> Change:
        """What is done to a clean training image alone; validation images stay as they are."""
        if self.stream == _VALIDATION:
            return Change()
        return draw_change(self.augment, rng, shrink, frame.modality)

    def _fitting(self, plane: Plane, shrink: int) -> int:
        """The shrink, or 1 for a slice that would be smaller than a patch."""
        return shrink if min(plane.shape) >= self.size * shrink else 1

    def _patient_and_slice(self, rng: np.random.Generator) -> tuple[Patient, int]:
        group = self.sources[rng.choice(len(self.sources), p=self.source_weights)]
        patient = group[rng.integers(len(group))]
        return patient, int(rng.integers(len(patient.slices)))

    def _patch(self, rng: np.random.Generator, shrink: int) -> tuple[Patient, int, Place]:
        """Patient, slice and place of a patch: the first that is foreground enough, else the best of some.

        The place is that of ``size`` pixels after the shrink, or without it in a slice that is too small.
        """
        best: tuple[Patient, int, Place] | None = None
        best_share = -1.0
        for _ in range(TRIES):
            patient, k = self._patient_and_slice(rng)
            mask = patient.foregrounds[k]
            side = self.size * self._fitting(mask, shrink)
            place, share = self._draw_place(rng, mask, side)
            if share > best_share:
                best, best_share = (patient, k, place), share
            if share >= self.least_foreground:
                break
        assert best is not None
        return best

    def _place(self, rng: np.random.Generator, mask: Plane) -> tuple[Place, float]:
        """Draw a patch position inside one slice, as ``_patch`` does. Returns (place, share of foreground)."""
        best = self._draw_place(rng, mask, self.size)
        for _ in range(TRIES - 1):
            if best[1] >= self.least_foreground:
                break
            best = max(best, self._draw_place(rng, mask, self.size), key=lambda found: found[1])
        return best

    def _draw_place(self, rng: np.random.Generator, mask: Plane, side: int) -> tuple[Place, float]:
        row, col = (int(rng.integers(n - side + 1)) for n in mask.shape)
        place = np.s_[row : row + side, col : col + side]
        return place, float(np.asarray(mask[place]).mean())


def _tensor(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32))


def _channels(image: Tensor) -> Tensor:
    return image if image.dim() == 3 else image[None]


def _check_conditions(patients: Sequence[Patient], degradation: Degradation, augment: AugmentConfig) -> None:
    """Real conditions and simulated noise exclude each other, and the noise suits every scan. Raises UserError."""
    real = {patient.conditions is not None for patient in patients}
    if real == {True, False}:
        raise UserError("data: found real noisy scans for some patients, expected them for all or none")
    for key in ("rotation", "contrast", "sharpness", "curve", "shrink", "lesions") if real == {True} else ():
        if (found := getattr(augment, key)) not in ("quarter", 0):  # it would change noise that is real
            raise UserError(f"data.augment.{key}: found {found:g} with real noisy scans, expected none")
    if real == {True} and degradation.type != "identity":
        raise UserError(f"data.noise.type: found {degradation.type} with real noisy scans, expected identity")
    if real == {False} and degradation.type == "identity":
        raise UserError("data.noise.type: found identity without real noisy scans, expected another type")
    for patient in patients:
        for frame in {patient.frame(k) for k in range(len(patient.slices))}:
            degradation.check(frame)


def source_weights(patients: Mapping[str, int]) -> NDArray[np.float64]:
    """How often each source (sorted by name, "CT-..." or "MR-...") is drawn, given its number of patients.

    The modalities share evenly; within one, a source counts as the root of its patients, so that a large collection
    of one protocol neither fills the batch nor is drowned by single scans.
    """
    names = sorted(patients)
    modality = [name.split("-")[0] for name in names]
    root = np.sqrt([patients[name] for name in names])
    total = {m: root[[n == m for n in modality]].sum() for m in modality}
    weights = np.array([r / total[m] for r, m in zip(root, modality, strict=True)])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


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
