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
Crop = tuple[slice, slice]
Texture = tuple[float, float, float]
"""Of noise: correlation with the next row and the next column, and 1 for a magnitude, else 0."""
TRIES = 8
WHOLE: Crop = np.s_[:, :]
PATCHES_PER_SLICE = 16
"""Patches that share one noisy slice, where noise is computed for whole slices (in projections, for example)."""
_VALIDATION = 1
_TRAINING = 0
_WHOLE = 1
"""Third part of a block's key, so that its random numbers differ from those of the pair of the same number."""
_NEIGHBOUR = 2
"""Appended to the key of a pair or block for the noise of its neighbouring slices."""
_JITTER, _TEXTURE_JITTER = 3, 4
"""Appended to the key of a pair for the random errors of its noise level and its texture."""


@dataclass
class _Slice:
    """A clean slice (C, H, W) kept in memory, with its condition, noise level, patient and foreground."""

    patient: Patient
    foreground: Plane
    change: Change
    x0: Tensor
    y: Tensor
    level: float
    texture: Texture | None


class PairDataset(Dataset[Pair]):
    """Pair ``i`` is ``{"x0": (C, S, S), "y": (C + further, S, S), "sigma": (), "index": i}`` on [-1, 1], for i >= 0.

    Drawn are a source by ``source_weights``, a patient, a slice, and a crop of which at least ``least_foreground`` is
    foreground (otherwise the best of a few draws), flipped and turned at random; then the parameter and the noise of
    the degradation. With ``acquisition`` names there is a ``vector`` (D,) too; with ``texture`` a ``texture`` (3,): the
    correlation of the noise with the next row and the next column, and 1 for a magnitude. Where patients have
    ``conditions``, y is the same crop of those. The first channels of y are the noisy image; then follow its
    neighbours, from below to above (with the same parameter and independent noise), and other contrasts, where patients
    have them. The result depends on (seed, i) alone: not on workers, batches or earlier pairs.

    patches_per_slice: number of consecutive pairs, from its multiples on, that share patient, slice, parameter and the
    noise of the whole slice, with a crop each; None: 16 where the degradation needs whole slices, else 1.
    slices_mixed: number of such slices that alternate from pair to pair, so that a batch holds several.
    augment: the augmentation, by default flips and quarter turns; validation pairs have only those, and with real noisy
    scans all others are refused. channels: C. level_jitter: standard deviation of the logarithm of a random factor of
    the noise level in training pairs; texture_jitter: standard deviation of what is added to their correlations, and
    share of them whose magnitude is told as its opposite. Validation pairs have the true level and texture.
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
            patient, level, change, texture = kept.patient, kept.level, kept.change, kept.texture
            crop = self._best_crop(rng, kept.foreground)[0]
            turn = draw_turn(self.augment, rng)
            x0, y = (turn(image[(..., *crop)]) for image in (kept.x0, kept.y))
            if texture is not None:  # the crop is turned, and its rows may be the slice's columns
                texture = (*measured_correlations(x0, y[: len(x0)]), texture[2])
        else:
            gen = generator(self.seed, self.stream, i)
            shrink = self._shrink(rng)
            patient, k, crop = self._patch(rng, shrink)
            turn = draw_turn(self.augment, rng)
            change = self._change(rng, patient.frame(k), self._fitting(patient.foregrounds[k], shrink))
            key = (self.seed, self.stream, i)
            x0, y, level, texture = self._degraded(patient, k, crop, gen, turn, change, key)
        if self.level_jitter > 0:
            normal = torch.randn((), generator=generator(self.seed, self.stream, i, _JITTER), dtype=torch.float64)
            level *= math.exp(self.level_jitter * float(normal))
        pair = {"x0": x0, "y": y, "sigma": torch.tensor(level), "index": torch.tensor(i)}
        if texture is not None:
            pair["texture"] = self._told_texture(texture, i)
        if self.acquisition:
            spacing = (patient.spacing[0], *change.spacing(patient.spacing[1:]))
            pair["vector"] = torch.tensor(acquisition_vector(self.acquisition, level, spacing))
        return pair

    def _slice(self, block: int) -> _Slice:
        """The degraded whole slice of a block of pairs; it is kept in memory, with those that alternate with it."""
        if block not in self._kept:
            rng = np.random.default_rng([self.seed, self.stream, _WHOLE, block])
            key = (self.seed, self.stream, _WHOLE, block)
            gen = generator(*key)
            shrink = self._shrink(rng)
            patient, k = self._patient_and_slice(rng)
            change = self._change(rng, patient.frame(k), self._fitting(patient.foregrounds[k], shrink))
            x0, y, level, texture = self._degraded(patient, k, WHOLE, gen, lambda image: image, change, key)
            self._kept = {b: s for b, s in self._kept.items() if b // self.mixed == block // self.mixed}
            self._kept[block] = _Slice(
                patient, change.foreground(patient.foregrounds[k]), change, x0, y, level, texture
            )
        return self._kept[block]

    def _told_texture(self, texture: Texture, i: int) -> Tensor:
        """The texture of pair i as the network is told it, (3,)."""
        told = torch.tensor(texture).nan_to_num()
        if self.texture_jitter > 0:
            gen = generator(self.seed, self.stream, i, _TEXTURE_JITTER)
            told[:2] += self.texture_jitter * torch.randn(2, generator=gen)
            if float(torch.rand((), generator=gen)) < self.texture_jitter:
                told[2] = 1 - told[2]
        return told

    def _degraded(
        self,
        patient: Patient,
        k: int,
        crop: Crop,
        gen: torch.Generator,
        turn: Turn,
        change: Change,
        key: tuple[int, ...],
    ) -> tuple[Tensor, Tensor, float, Texture | None]:
        """Clean image (C, H, W), condition (C + further, H, W), noise level and texture of a crop of slice k."""

        def cut(plane: Plane, clean: bool = False) -> Tensor:
            image = _tensor(change.cut(plane, crop))
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
                neighbour_generator = generator(*key, _NEIGHBOUR, n)
                neighbour = self.degradation.noise_free(cut(plane, clean=True), parameter, frame)
                made[id(plane)] = self.degradation.apply(neighbour, parameter, neighbour_generator, frame)
            images.append(made[id(plane)])
        images += [cut(plane) for plane in (patient.contrasts[k] if patient.contrasts is not None else ())]
        level = self.degradation.level(x0, y, parameter, frame)
        texture = None
        if self.texture:
            magnitude = float(self.degradation.is_magnitude(parameter, frame))
            texture = (*self.degradation.correlations(x0, y, parameter, frame), magnitude)
        return _channels(x0), torch.cat([_channels(image) for image in images]), level, texture

    def _shrink(self, rng: np.random.Generator) -> int:
        """Draw the shrink of a training patch; validation images are not shrunk."""
        return 1 if self.stream == _VALIDATION else draw_shrink(self.augment, rng)

    def _change(self, rng: np.random.Generator, frame: Frame, shrink: int) -> Change:
        """Draw the change of a clean training image; validation images are not changed."""
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

    def _patch(self, rng: np.random.Generator, shrink: int) -> tuple[Patient, int, Crop]:
        """Draw patient, slice and crop of a patch: the first with enough foreground, else the best of TRIES.

        The crop has ``size`` pixels after the shrink, or without it in a slice that is too small.
        """
        best: tuple[Patient, int, Crop] | None = None
        best_share = -1.0
        for _ in range(TRIES):
            patient, k = self._patient_and_slice(rng)
            mask = patient.foregrounds[k]
            side = self.size * self._fitting(mask, shrink)
            crop, share = self._draw_crop(rng, mask, side)
            if share > best_share:
                best, best_share = (patient, k, crop), share
            if share >= self.least_foreground:
                break
        assert best is not None
        return best

    def _best_crop(self, rng: np.random.Generator, mask: Plane) -> tuple[Crop, float]:
        """Draw a crop inside one slice, as ``_patch`` does. Returns (crop, share of foreground)."""
        best = self._draw_crop(rng, mask, self.size)
        for _ in range(TRIES - 1):
            if best[1] >= self.least_foreground:
                break
            best = max(best, self._draw_crop(rng, mask, self.size), key=lambda found: found[1])
        return best

    def _draw_crop(self, rng: np.random.Generator, mask: Plane, side: int) -> tuple[Crop, float]:
        row, col = (int(rng.integers(n - side + 1)) for n in mask.shape)
        crop = np.s_[row : row + side, col : col + side]
        return crop, float(np.asarray(mask[crop]).mean())


def _tensor(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32))


def _channels(image: Tensor) -> Tensor:
    return image if image.dim() == 3 else image[None]


def _check_conditions(patients: Sequence[Patient], degradation: Degradation, augment: AugmentConfig) -> None:
    """Real conditions and simulated noise exclude each other, and the noise suits every scan. Raises UserError."""
    real = {patient.conditions is not None for patient in patients}
    if real == {True, False}:
        raise UserError("data: found real noisy scans for some patients, expected them for all or none")
    for key in ("rotation", "contrast", "sharpness", "curve", "shrink", "leaves", "lesions") if real == {True} else ():
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
    """Probability of each source (sorted by name, "CT-..." or "MR-...") in training.

    Modalities have equal shares; within one, a source has a share in proportion to the square root of its number of
    patients, so that a large collection of one protocol does not crowd out single scans, nor they it.
    """
    names = sorted(patients)
    modality = [name.split("-")[0] for name in names]
    root = np.sqrt([patients[name] for name in names])
    total = {m: root[[n == m for n in modality]].sum() for m in modality}
    weights = np.array([r / total[m] for r, m in zip(root, modality, strict=True)])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


class OrderedFrom(Sampler[int]):
    """Indices start, start + stride, ... without end: the data order of a run that has used ``start`` pairs.

    stride: the number of processes that share the order, each with a start of its own.
    """

    def __init__(self, start: int, stride: int = 1) -> None:
        self.start, self.stride = start, stride

    def __iter__(self) -> Iterator[int]:
        i = self.start
        while True:
            yield i
            i += self.stride
