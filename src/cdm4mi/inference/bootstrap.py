"""The parametric bootstrap: restored images are taken for the truth, noise like the scan's is added to them, and the
result is restored again (Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 6.5).

What the second restoration gets wrong is known, and tells how far the model errs on this scan: on an even object less
than on one that is full of detail. What the first restoration removed of the object itself is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cdm4mi.inference.calibration import bootstrap_ratio
from cdm4mi.inference.scan import Scan
from cdm4mi.intensity import COLOUR, foreground
from cdm4mi.models.about import Calibration

FOREGROUND = -0.9
"""On [-1, 1]: what is above is taken for the patient."""
SIDE = 96
"""Pixels along a side of the parts of a scan."""
PARTS = 6
LOOKED_AT = 24
"""Slices among which the parts are chosen."""
LEAST_SHARE = 0.5
"""Of the patient's share of the part that has most of him."""

Moments: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
Restore: TypeAlias = Callable[[NDArray[Any], int], Moments]
"""Mean and standard deviation of the samples, (1, channels, rows, columns), of what the network is given of one image
(1, further channels too, rows, columns), with the noise of an image of this number."""


class Repeated(NamedTuple):
    """Of one image (channels, rows, columns) on [-1, 1]: mean and standard deviation of its samples, and what the mean
    of the samples of the restored image with new noise differs by."""

    mean: NDArray[Any]
    spread: NDArray[Any]
    error: NDArray[Any]


class Part(NamedTuple):
    """A part of a scan: the number of the slice, and its rows and columns."""

    number: int
    crop: tuple[slice, slice]


class RestorePart(Protocol):
    """Restores the same part of slices of these indices, with the noise of images of these numbers."""

    def __call__(
        self, condition: NDArray[Any], index: list[int], numbers: list[int], crop: tuple[slice, slice], /
    ) -> Moments: ...


def bootstrapped(scan: Scan, calibration: Calibration | None, reach: int, restore: RestorePart) -> Scan:
    """The scan with its bootstrap ratio in ``uncertainty``, where its intervals follow from it: of some parts of it.

    reach: neighbouring slices on each side that the network is given.
    """
    uncertainty = scan.uncertainty
    if calibration is None or uncertainty is None or uncertainty.kind is None:
        return scan
    fitted = calibration.kinds[uncertainty.kind]
    if fitted.bootstrap_power == 0:
        return scan
    zero = float(scan.norm.normalised(np.zeros(()))) if scan.texture[2] > 0.5 else None
    found, levels = [], []
    for n, (k, crop) in enumerate(parts_of(scan.volume.images()[:, 0], partial(_patient, scan.norm.modality))):
        condition = scan.slab([k], reach).condition[(..., *crop)]

        def again(images: NDArray[Any], number: int, k: int = k, crop: tuple[slice, slice] = crop) -> Moments:
            return restore(images, [k], [number], crop)

        one = repeated(again, condition, float(scan.used[k]), zero, 2 * n, scan.seed)
        found.append(one)
        levels += [float(scan.used[k])] * len(one.mean)
    scan.release()
    mean, spread, error = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    ratio = bootstrap_ratio(fitted, error, spread, np.array(levels), mean > FOREGROUND)
    return replace(scan, uncertainty=uncertainty.model_copy(update={"bootstrap": round(ratio, 4)}))


def _patient(modality: str | None, image: NDArray[Any]) -> NDArray[np.bool_]:
    """Rough mask of the patient in a slice, or in one channel of a colour image."""
    return np.ones(image.shape, bool) if modality == COLOUR else foreground(image, modality)


def repeated(
    restore: Restore, condition: NDArray[Any], sigma: float, zero: float | None, number: int, seed: int = 0
) -> Repeated:
    """Restore an image, and the result with new noise. condition: what the network is given, (1, channels of the image
    first, rows, columns); neighbours and other contrasts stay as they are. Other arguments as for ``noisy_again``.
    """
    means, spreads = restore(condition, number)
    mean = means[0]
    again = np.array(condition)
    again[0, : len(mean)] = noisy_again(condition[0, : len(mean)], mean, sigma, (seed, number), zero)
    return Repeated(mean, spreads[0], restore(again, number + 1)[0][0] - mean)


def noisy_again(
    noisy: NDArray[Any],
    restored: NDArray[Any],
    sigma: float,
    seed: int | Sequence[int],
    zero: float | None = None,
) -> NDArray[np.float32]:
    """Restored images (N, rows, columns) on [-1, 1] with new noise like that which was taken from the noisy ones.

    The noise is Gaussian, with the power spectrum of noisy - restored and the standard deviation sigma. zero: what
    stands for the physical value 0 where the images are magnitudes of a complex signal, whose two parts then get such
    noise (Gudbjartsson and Patz 1995); None: they are not. seed: decides the noise.
    """
    residual = np.where(restored > FOREGROUND, noisy - restored, 0.0)
    power = np.square(np.abs(np.fft.fft2(residual))).mean(0)
    power[0, 0] = 0.0
    mean = float(power.mean())
    response = np.sqrt(power / mean) if mean > 0 else np.ones_like(power)
    random = np.random.default_rng(seed)

    def noise() -> NDArray[np.float64]:
        white = np.fft.fft2(random.standard_normal(restored.shape))
        shaped: NDArray[np.float64] = sigma * np.fft.ifft2(response * white).real
        return shaped

    if zero is None:
        return (restored + noise()).astype(np.float32)
    return (np.hypot(restored - zero + noise(), noise()) + zero).astype(np.float32)


def parts_of(images: NDArray[Any], patient: Callable[[NDArray[Any]], NDArray[np.bool_]], seed: int = 0) -> list[Part]:
    """Up to ``PARTS`` squares of ``SIDE`` pixels in the patient, drawn by the seed from slices spread over a scan.

    images: (slices, rows, columns); patient: the mask of a slice. Slices that are smaller are taken whole; of a small
    scan there are so few that they have no more pixels than it has.
    """
    rows, columns = images.shape[-2:]
    tall, wide = min(rows, SIDE), min(columns, SIDE)
    tops, lefts = (range(0, length - side + 1, max(1, side // 4)) for length, side in ((rows, tall), (columns, wide)))
    found, shares = [], []
    for k in np.unique(np.linspace(0, len(images) - 1, min(len(images), LOOKED_AT)).round().astype(int)):
        share = uniform_filter(patient(images[k]).astype(np.float32), (tall, wide), mode="constant")
        for top in tops:
            for left in lefts:
                found.append(Part(int(k), np.s_[top : top + tall, left : left + wide]))
                shares.append(float(share[top + tall // 2, left + wide // 2]))
    suited = np.flatnonzero(np.array(shares) >= LEAST_SHARE * max(shares))
    most = min(PARTS, max(1, images.size // (tall * wide)))
    chosen = np.random.default_rng(seed).permutation(suited)[:most]
    return [found[n] for n in sorted(chosen)]
