"""Noisy images made in batches, on any device, of what was drawn for them on the CPU."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cdm4mi.data.augment import Change, Intensities
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.degradation.base import BatchedNoise, Drawn, stacked
from cdm4mi.diffusion.noise import KeyedNoise


class DrawnImage(NamedTuple):
    """One image before noise: the crop (C, H, W), changes of its values, parameter of the noise, frame, key.

    y: the real noisy image; None where the noise is simulated.
    """

    crop: Tensor
    change: Change
    parameter: Any
    frame: Frame
    y: Tensor | None = None


class NoiseGroup(NamedTuple):
    """Images of a batch with one kind of noise: their numbers in the batch (n,), and the noise's.

    alone: parameter and frame of the one image of a noise that is not made in batches.
    """

    images: Tensor
    noise: Degradation
    drawn: Drawn
    alone: tuple[Any, Frame] | None


class DrawnImages(NamedTuple):
    """N images before noise: crops (N, C, H, W), changes of their values, noise by kind, magnitudes (N,), keys (N,)
    of the random numbers, and the real noisy images, if any. All tensors are small but for the images."""

    crops: Tensor
    intensities: Intensities
    groups: list[NoiseGroup]
    magnitude: Tensor
    keys: Tensor
    y: Tensor | None


class NoisyImages(NamedTuple):
    """N images: what a scanner without noise shows and the noisy image, (N, C, H, W), and the noise level (N,).

    relative: the noise level of each pixel over that of its image, (N, 1, H, W); or None. texture: of the noise,
    correlation with the next row and the next column, and 1 for a magnitude, (N, 3); or None. lesions: where
    lesions were added, (N, 1, H, W), as ``with_lesions`` returns it; None where no image has any.
    """

    x0: Tensor
    y: Tensor
    level: Tensor
    relative: Tensor | None
    texture: Tensor | None
    lesions: Tensor | None


def drawn_images(images: Sequence[DrawnImage], degradation: Degradation, keys: Tensor) -> DrawnImages:
    """What was drawn for N images, as tensors; keys: (N,), of their random numbers."""
    groups: dict[Hashable, list[tuple[int, Degradation, Any]]] = {}
    levels: list[list[float | None]] = []
    for n, image in enumerate(images):
        noise, parameter = degradation.chosen(image.parameter, image.frame)
        levels.append(_lesion_levels(image, noise, parameter))
        groups.setdefault(noise.group if isinstance(noise, BatchedNoise) else n, []).append((n, noise, parameter))
    arranged, magnitude = [], torch.zeros(len(images))
    for members in groups.values():
        first, noise, parameter = members[0]
        batched = isinstance(noise, BatchedNoise)
        numbers = [each.numbers(its, images[n].frame) for n, each, its in members if isinstance(each, BatchedNoise)]
        alone = None if batched else (parameter, images[first].frame)
        index = torch.tensor([n for n, _, _ in members])
        magnitude[index] = float(noise.is_magnitude(parameter, images[first].frame))
        arranged.append(NoiseGroup(index, noise, stacked(numbers) if batched else {}, alone))
    real = [image.y for image in images if image.y is not None]
    return DrawnImages(
        torch.stack([image.crop for image in images]),
        Intensities.of([image.change for image in images], levels),
        arranged,
        magnitude,
        keys,
        torch.stack(real) if real else None,
    )


def _lesion_levels(image: DrawnImage, noise: Degradation, parameter: Any) -> list[float | None]:
    """Level on [-1, 1] of white noise as strong as this at the frequencies of each lesion; None: not known."""
    areas = [lesion.ellipse.area for lesion in image.change.lesions]
    level = noise.stated_level(parameter, image.frame) if areas else None
    if level is None:
        return [None] * len(areas)
    return [level * math.sqrt(power) for power in noise.blob_powers(parameter, areas)]


def noisy_images(drawn: DrawnImages, texture: bool, level_map: bool = False) -> NoisyImages:
    """Change the values of the images and add their noise, on the device that they are on.

    texture, level_map: whether texture and relative level of the noise are wanted. Nothing waits for the device, but
    for noises that are not made in batches.
    """
    x0, lesions = drawn.intensities.applied(drawn.crops.float())
    y, level, lags = torch.empty_like(x0), x0.new_empty(len(x0)), x0.new_empty(len(x0), 2)
    relative = torch.ones_like(x0[:, :1]) if level_map else None
    random = KeyedNoise(drawn.keys)
    for index, noise, numbers, alone in drawn.groups:
        clean = x0[index]
        if isinstance(noise, BatchedNoise):
            clean = noise.noise_free_batch(clean, numbers)
            noisy = noise.add(clean, numbers, random[index]) if drawn.y is None else drawn.y[index]
            level[index] = noise.levels(clean, noisy, numbers)
            if texture:
                lags[index] = noise.textures(clean, noisy, numbers)
            if relative is not None and drawn.y is None:
                relative[index] = noise.relative_levels(clean, numbers, random[index]).expand_as(clean[:, :1])
        else:
            assert alone is not None
            clean = noise.noise_free(clean[0], *alone)[None]
            generator = torch.Generator().manual_seed(int(drawn.keys[index]))
            noisy = noise.apply(clean[0], alone[0], generator, alone[1])[None]
            level[index] = noise.level(clean[0], noisy[0], *alone)
            if texture:
                lags[index] = torch.tensor(noise.correlations(clean[0], noisy[0], *alone))
        x0[index], y[index] = clean, noisy
    stated = torch.cat([lags.nan_to_num(), drawn.magnitude[:, None]], 1) if texture else None
    return NoisyImages(x0, y, level, relative, stated, lesions)
