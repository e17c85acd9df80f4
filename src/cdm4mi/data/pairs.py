"""Training pairs: a clean patch and its degraded condition, each decided by a seed and an index alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.acquisition import acquisition_vector
from cdm4mi.data.augment import Change, Turn, draw_change, draw_shrink, draw_turn
from cdm4mi.data.images import DrawnImage, DrawnImages, drawn_images, noisy_images
from cdm4mi.data.lesions import loss_weights
from cdm4mi.data.patient import Patient, Plane
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.degradation.base import BatchedNoise, measured_correlations
from cdm4mi.degradation.varying import smooth_maps
from cdm4mi.diffusion.noise import KeyedNoise, generator
from cdm4mi.errors import UserError

Pair = dict[str, Tensor]
Crop = tuple[slice, slice]
TRIES = 8
WHOLE: Crop = np.s_[:, :]
PATCHES_PER_SLICE = 16
"""Patches that share one noisy slice, where noise is computed for whole slices (in projections, for example)."""
_VALIDATION = 1
_TRAINING = 0
_WHOLE = 1
"""Third part of a block's key, so that its random numbers differ from those of the pair of the same number."""
_JITTER, _TEXTURE_JITTER, _MAPPED, _MAP_ERROR = 257, 258, 260, 261
"""Streams of a pair's random numbers: for the errors of its noise level and its texture, for whether it has a map of
the level, and for the map's errors."""


@dataclass
class _Slice:
    """A clean slice (C, H, W) kept in memory, with its condition, noise level, patient, foreground and lesions."""

    patient: Patient
    foreground: Plane
    change: Change
    x0: Tensor
    y: Tensor
    level: Tensor
    relative: Tensor | None
    magnitude: float
    lesions: Tensor | None


class DrawnPairs(NamedTuple):
    """What is drawn for N pairs on the CPU; ``PairDataset.make`` makes the pairs of it, on any device.

    numbers: (N,), those of the pairs. images: of the pairs, then of their neighbours. layout: (N, 1 + neighbours),
    which image is where in y. contrasts: (N, further, S, S). acquisition: (N, D) but for the noise level.
    """

    numbers: Tensor
    images: DrawnImages
    layout: Tensor
    contrasts: Tensor | None
    acquisition: Tensor | None

    def to(self, device: torch.device) -> DrawnPairs:
        """On a device, copied while the CPU goes on; numbers of pairs stay on the CPU."""
        moved: DrawnPairs = _moved(self, device)
        return moved._replace(numbers=self.numbers)


class PairDataset(Dataset[Pair]):
    """Pair ``i`` is ``{"x0": (C, S, S), "y": (C + further, S, S), "sigma": (), "index": i}`` on [-1, 1], for i >= 0.

    Drawn are a source by ``source_weights``, a patient, a slice, and a crop of which at least ``least_foreground`` is
    foreground (otherwise the best of a few draws), flipped and turned at random; then the parameter and the noise of
    the degradation. With ``acquisition`` names there is a ``vector`` (D,) too; with ``texture`` a ``texture`` (3,): the
    correlation of the noise with the next row and the next column, and 1 for a magnitude; with ``level_map_share`` a
    ``relative_level`` (1, S, S), the noise level of each pixel over sigma; with ``augment.lesion_weight`` above 1 a
    ``weight`` (1, S, S) of the loss, which validation pairs have not. Where patients have ``conditions``, y is the
    same crop of those. The first channels of y are the noisy image; then follow its neighbours, from below to above
    (with the same parameter and independent noise), and other contrasts, where patients have them. The result depends
    on (seed, i) alone: not on workers, batches or earlier pairs.

    patches_per_slice: number of consecutive pairs, from its multiples on, that share patient, slice, parameter and the
    noise of the whole slice, with a crop each; None: 16 where the degradation needs whole slices, else 1.
    slices_mixed: number of such slices that alternate from pair to pair, so that a batch holds several.
    augment: the augmentation, by default flips and quarter turns; validation pairs have only those, and with real noisy
    scans all others are refused. channels: C. level_jitter: standard deviation of the logarithm of a random factor of
    the noise level in training pairs; texture_jitter: standard deviation of what is added to their correlations, and
    share of them whose magnitude is told as its opposite; level_map_share: of the training pairs that have their
    relative level, with an error that varies by ``level_jitter`` either way; others have 1. Validation pairs have the
    true level, relative level and texture.
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
        level_map_share: float = 0.0,
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
        self.level_map_share = 1.0 if validation and level_map_share > 0 else level_map_share
        self.texture, self.texture_jitter = texture, 0.0 if validation else texture_jitter
        self.whole = degradation.whole_slice or self.block > 1
        self._kept: dict[int, _Slice] = {}
        sources: dict[str, list[Patient]] = {}
        for patient in patients:
            sources.setdefault(patient.source, []).append(patient)
        self.sources = [sources[name] for name in sorted(sources)]
        self.source_weights = source_weights({name: len(sources[name]) for name in sources})
        self._cumulative = self.source_weights.cumsum() / self.source_weights.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Pair:
        return {name: values[0] for name, values in self.batch([i]).items()}

    def batch(self, numbers: Sequence[int]) -> Pair:
        """The pairs of these numbers, together: (N, ...) of each."""
        return self._cut(numbers) if self.whole else self.make(self.draw(numbers))

    def tied_to_cpu(self) -> str | None:
        """Why ``draw`` and ``make`` cannot make the pairs on a GPU, as a clause; None where they can."""
        if self.whole:
            return "whole slices are made noisy, of which several patches are cut"
        alone = [noise.type for noise in self.degradation.all_chosen() if not isinstance(noise, BatchedNoise)]
        return f"noise {alone[0]} is made image by image" if alone else None

    def draw(self, numbers: Sequence[int]) -> DrawnPairs:
        """Draw the pairs of these numbers, where each has a patch of its own: all that is random but noise."""
        taken = []
        for i in numbers:
            rng = np.random.default_rng([self.seed, self.stream, i])
            gen = generator(self.seed, self.stream, i)
            shrink = self._shrink(rng)
            patient, k, crop = self._patch(rng, shrink)
            turn = draw_turn(self.augment, rng)
            shrink = self._fitting(patient.foregrounds[k], shrink)
            change = self._change(rng, patient.frame(k), self.size**2, shrink)
            taken.append(_Taken(patient, k, crop, turn, change, self.degradation.draw(gen)))
        return self._drawn(taken, (self.seed, self.stream), numbers)

    def make(self, drawn: DrawnPairs) -> Pair:
        """Make the pairs of what was drawn, on the device that it is on. Nothing waits for the device."""
        images = noisy_images(drawn.images, self.texture, self.level_map_share > 0)
        count = len(drawn.numbers)
        y = images.y[drawn.layout].flatten(1, 2)
        if drawn.contrasts is not None:
            y = torch.cat([y, drawn.contrasts], 1)
        keys = drawn.images.keys[:count]
        texture, relative = (None if v is None else v[:count] for v in (images.texture, images.relative))
        pairs = {"x0": images.x0[:count], "y": y, **self._stated(images.level[:count], relative, texture, keys)}
        pairs |= self._weighted(images.x0[:count], images.level[:count], images.lesions)
        if drawn.acquisition is not None:
            pairs["vector"] = self._vector(drawn.acquisition, pairs["sigma"])
        return {**pairs, "index": drawn.numbers}

    def _cut(self, numbers: Sequence[int]) -> Pair:
        """Pairs cut out of slices that are noisy as a whole."""
        pairs = []
        for i in numbers:
            rng = np.random.default_rng([self.seed, self.stream, i])
            kept = self._slice(i // (self.block * self.mixed) * self.mixed + i % self.mixed)
            crop = self._best_crop(rng, kept.foreground)[0]
            turn = draw_turn(self.augment, rng)
            x0, y = (turn(image[(..., *crop)]) for image in (kept.x0, kept.y))
            relative = None if kept.relative is None else turn(kept.relative[(..., *crop)])[None]
            texture = None
            if self.texture:  # the crop is turned, and its rows may be the slice's columns
                lags = torch.tensor([measured_correlations(x0, y[: len(x0)])]).nan_to_num()
                texture = torch.cat([lags, torch.tensor([[kept.magnitude]])], 1)
            keys = KeyedNoise.of(self.seed, self.stream, index=torch.tensor([i])).keys
            pair = {"x0": x0[None], "y": y[None], **self._stated(kept.level[None], relative, texture, keys)}
            inside = None if kept.lesions is None else turn(kept.lesions[(..., *crop)])[None]
            pair |= self._weighted(pair["x0"], kept.level[None], inside)
            if self.acquisition:
                spacing = self._acquired(kept.patient, kept.change)
                pair["vector"] = self._vector(torch.tensor([spacing]), pair["sigma"])
            pairs.append({**pair, "index": torch.tensor([i])})
        return {name: torch.cat([pair[name] for pair in pairs]) for name in pairs[0]}

    def _slice(self, block: int) -> _Slice:
        """The degraded whole slice of a block of pairs; it is kept in memory, with those that alternate with it."""
        if block not in self._kept:
            key = (self.seed, self.stream, _WHOLE)
            rng = np.random.default_rng([*key, block])
            gen = generator(*key, block)
            shrink = self._shrink(rng)
            patient, k = self._patient_and_slice(rng)
            shrink = self._fitting(patient.foregrounds[k], shrink)
            pixels = math.prod(patient.foregrounds[k].shape) // shrink**2
            change = self._change(rng, patient.frame(k), pixels, shrink)
            taken = _Taken(patient, k, WHOLE, lambda image: image, change, self.degradation.draw(gen))
            drawn = self._drawn([taken], key, [block])
            images = noisy_images(drawn.images, False, self.level_map_share > 0)
            y = images.y[drawn.layout].flatten(1, 2)
            y = y if drawn.contrasts is None else torch.cat([y, drawn.contrasts], 1)
            self._kept = {b: s for b, s in self._kept.items() if b // self.mixed == block // self.mixed}
            self._kept[block] = _Slice(
                patient,
                change.foreground(patient.foregrounds[k]),
                change,
                images.x0[0],
                y[0],
                images.level[0],
                None if images.relative is None else images.relative[0],
                float(drawn.images.magnitude[0]),
                None if images.lesions is None else images.lesions[0],
            )
        return self._kept[block]

    def _drawn(self, taken: Sequence[_Taken], key: tuple[int, ...], numbers: Sequence[int]) -> DrawnPairs:
        """The images of pairs and of their neighbours, whose noise is decided by the key, the number and which it is.

        Neighbours have the parameter of their pair; a slice that is repeated has the one noise.
        """
        images: list[DrawnImage] = [one.image(one.patient.slices[one.k]) for one in taken]
        owners = [(n, 0) for n in range(len(taken))]
        layout: list[list[int]] = []
        contrasts: list[Tensor] = []
        for n, one in enumerate(taken):
            patient, k = one.patient, one.k
            positions = {id(patient.slices[k] if patient.conditions is None else patient.conditions[k]): n}
            layout.append([n])
            for plane in patient.neighbours[k] if patient.neighbours is not None else ():
                if id(plane) not in positions:
                    positions[id(plane)] = len(images)
                    owners.append((n, len(positions) - 1))
                    images.append(one.image(plane))
                layout[n].append(positions[id(plane)])
            if patient.contrasts is not None and patient.contrasts[k]:
                contrasts.append(torch.cat([one.cut(plane) for plane in patient.contrasts[k]]))
        keys = torch.stack(
            [
                KeyedNoise.of(*key, which, index=torch.tensor(numbers)).keys
                for which in range(1 + max(which for _, which in owners))
            ]
        )
        pair, which = torch.tensor(owners).unbind(1)
        acquired = [self._acquired(one.patient, one.change) for one in taken] if self.acquisition else None
        return DrawnPairs(
            torch.tensor(numbers),
            drawn_images(images, self.degradation, keys[which, pair]),
            torch.tensor(layout),
            torch.stack(contrasts) if contrasts else None,
            None if acquired is None else torch.tensor(acquired),
        )

    def _acquired(self, patient: Patient, change: Change) -> list[float]:
        """The acquisition numbers of a pair, with 0 for its noise level."""
        return acquisition_vector(self.acquisition, 0.0, (patient.spacing[0], *change.spacing(patient.spacing[1:])))

    def _vector(self, acquired: Tensor, sigma: Tensor) -> Tensor:
        """Acquisition numbers (N, D) with their noise level."""
        columns = zip(self.acquisition, acquired.unbind(1), strict=True)
        return torch.stack([sigma if name == "noise_level" else column for name, column in columns], 1)

    def _stated(self, level: Tensor, relative: Tensor | None, texture: Tensor | None, keys: Tensor) -> Pair:
        """``sigma`` (N,) and, if any, ``relative_level`` and ``texture``, as the network is given them: with errors."""
        random = KeyedNoise(keys)
        if self.level_jitter > 0:
            level = level * torch.exp(self.level_jitter * random.normal(stream=_JITTER))
        stated = {"sigma": level}
        if relative is not None:
            if self.level_jitter > 0:
                spread = torch.full_like(level, self.level_jitter)
                relative = relative * smooth_maps(relative, spread, random, _MAP_ERROR)
            mapped = random.uniform(1, 1, 1, stream=_MAPPED) < self.level_map_share
            stated["relative_level"] = torch.where(mapped, relative, 1.0)
        if texture is None:
            return stated
        if self.texture_jitter > 0:
            lags = texture[:, :2] + self.texture_jitter * random.normal(2, stream=_TEXTURE_JITTER)
            wrong = random.uniform(1, stream=_TEXTURE_JITTER + 1) < self.texture_jitter
            texture = torch.cat([lags, torch.where(wrong, 1 - texture[:, 2:], texture[:, 2:])], 1)
        return {**stated, "texture": texture}

    def _weighted(self, x0: Tensor, level: Tensor, lesions: Tensor | None) -> Pair:
        """The ``weight`` of training pairs with clean images x0 (N, C, H, W) and noise levels (N,), if any.

        lesions: of ``NoisyImages``.
        """
        if self.augment.lesion_weight == 1 or self.stream == _VALIDATION:
            return {}
        inside = torch.zeros_like(x0[:, :1]) if lesions is None else lesions[: len(x0)]
        return {"weight": loss_weights(inside, level, self.augment.lesion_weight)}

    def _shrink(self, rng: np.random.Generator) -> int:
        """Draw the shrink of a training patch; validation images are not shrunk."""
        return 1 if self.stream == _VALIDATION else draw_shrink(self.augment, rng)

    def _change(self, rng: np.random.Generator, frame: Frame, pixels: int, shrink: int) -> Change:
        """Draw the change of a clean training image; validation images are not changed."""
        if self.stream == _VALIDATION:
            return Change()
        return draw_change(self.augment, rng, pixels, shrink, frame.modality)

    def _fitting(self, plane: Plane, shrink: int) -> int:
        """The shrink, or 1 for a slice that would be smaller than a patch."""
        return shrink if min(plane.shape) >= self.size * shrink else 1

    def _patient_and_slice(self, rng: np.random.Generator) -> tuple[Patient, int]:
        group = self.sources[int(self._cumulative.searchsorted(rng.random(), side="right"))]
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


class _Taken(NamedTuple):
    """A crop of slice k of a patient, with its turn, the change of its values, and the parameter of its noise."""

    patient: Patient
    k: int
    crop: Crop
    turn: Turn
    change: Change
    parameter: Any

    def cut(self, plane: Plane) -> Tensor:
        """The crop of a slice, (C, S, S)."""
        return self.turn(_channels(_tensor(self.change.cut(plane, self.crop))))

    def image(self, plane: Plane) -> DrawnImage:
        """A clean slice, or of a patient with real noisy slices one of those, with slice k as its clean image."""
        frame = self.patient.frame(self.k)
        frame = replace(frame, spacing=self.change.spacing(frame.spacing))
        slices, real = self.patient.slices, self.patient.conditions
        if real is None:
            return DrawnImage(self.cut(plane), self.change, self.parameter, frame)
        clean, noisy = slices[self.k], real[self.k] if plane is slices[self.k] else plane
        return DrawnImage(self.cut(clean), self.change, self.parameter, frame, self.cut(noisy))


def _moved(values: Any, device: torch.device) -> Any:
    """Every tensor of nested tuples, lists and dictionaries, on a device."""
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {key: _moved(value, device) for key, value in values.items()}
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(_moved(value, device) for value in values))
    return type(values)(_moved(value, device) for value in values) if isinstance(values, (list, tuple)) else values


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
            try:
                degradation.check(frame)
            except UserError as error:
                taken = "a file that does not state its modality, as DICOM does, is taken for CT or MR by its values"
                raise UserError(f"data: patient {patient.name}: {error} ({taken})") from None


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
