"""Lesions in real slices, with the same noise as the slices without them: what every method makes of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.degradation import Degradation, Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError
from cdm4mi.evaluation.statistics import bootstrap_interval
from cdm4mi.intensity import window_for
from cdm4mi.lesions.blobs import count_blobs
from cdm4mi.lesions.channels import channel_outputs, dog_channels
from cdm4mi.lesions.contrast import AROUND, contrast_kept, visibility
from cdm4mi.lesions.ideal import ideal_detectability, noise_density
from cdm4mi.lesions.methods import Method
from cdm4mi.lesions.observer import hotelling_observer
from cdm4mi.lesions.pairs import PairedNoise
from cdm4mi.lesions.record import Cell, Score
from cdm4mi.lesions.shapes import Site, inside, lesion, pixel_size, region
from cdm4mi.lesions.tissue import FLAT, SIDE, Tissue
from cdm4mi.measure.noise_level import estimate_noise

Array = NDArray[Any]
Kind = tuple[float, float]
"""Diameter in pixels or mm, and contrast in the unit that the test states (``Tissue.unit``)."""


@dataclass
class Gathered:
    """What one method returned at every site and draw, in the order of both."""

    absent: list[NDArray[np.float64]] = field(default_factory=list)
    present: dict[Kind, list[NDArray[np.float64]]] = field(default_factory=dict)
    kept: dict[Kind, list[float]] = field(default_factory=dict)
    deviations: dict[float, list[float]] = field(default_factory=dict)
    invented: dict[Kind, int] = field(default_factory=dict)


def measure(
    tissues: Sequence[Tissue],
    methods: Mapping[str, Method],
    noise: Degradation | None,
    noise_title: str,
    sizes: Sequence[float],
    contrasts: Sequence[float],
    *,
    in_mm: bool = False,
    sphere: bool = False,
    repeats: int = 6,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> list[Cell]:
    """Every method on every size and contrast in one kind of noise, pooled over sites, scans and draws of noise.

    sizes: diameters in pixels, or mm. contrasts: in ``Tissue.unit``. noise: with a title for tables; None takes the
    scans as they are, once, and gives neither detectability nor invented blobs. progress: called for every scan, draw
    and method.
    """
    kinds = [(size, contrast) for size in sizes for contrast in contrasts]
    repeats = repeats if noise is not None else 1
    gathered = {name: Gathered() for name in methods}
    sigmas: list[float] = []
    ideal: dict[Kind, list[float]] = {}
    area = 0.0
    channels = dog_channels(SIDE)
    for number, part in enumerate(tissues):
        frame = Frame.of(window_for(part.scan), part.scan.spacing[1:])
        if noise is not None:
            noise.check(frame)
        parameter = None if noise is None else noise.draw(generator(seed, number))
        shapes = {size: _shapes(part, size, in_mm, sphere) for size in sizes}
        where = _around(part)
        regions: list[Array] = []
        reference, signals = part.clean, {kind: kind[1] * part.unit * shapes[kind[0]].image for kind in kinds}
        for repeat in range(repeats):
            paired = PairedNoise(noise, frame, parameter, (seed, number, repeat))
            y = paired.noisy(part.clean)
            sigma = estimate_noise(y[part.middle]).sigma
            sigmas.append(sigma / part.unit)
            variants = [y, *(paired.with_lesion(y, part.clean, _whole(part, signals[kind])) for kind in kinds)]
            whole = np.stack(variants)
            images = whole[..., part.crop[0], part.crop[1]]
            reference = paired.noise_free(part.clean)[part.middle][part.crop]
            regions += [region(images[0, part.middle] - reference, site, SIDE) for site in part.sites]
            for name, method in methods.items():
                seen = slice(part.middle - method.beside, part.middle + method.beside + 1)
                out = method.restore((whole if method.whole else images)[:, seen], sigma, part.scan)
                out = out[..., part.crop[0], part.crop[1]] if method.whole else out
                _gather(gathered[name], part, shapes, kinds, out, reference, where, channels)
                progress()
        area += repeats * float(where.sum()) * pixel_size(part.scan.spacing) ** 2 / 100
        if noise is not None:
            density = noise_density(np.stack(regions) - np.mean(regions), SIDE) + _own_noise(part)
            for kind in kinds:
                ideal.setdefault(kind, []).append(
                    ideal_detectability(kind[1] * part.unit * shapes[kind[0]].profile, density)
                )
    sites = [len(part.sites) for part in tissues]
    pixel = float(np.mean([pixel_size(part.scan.spacing) for part in tissues]))
    return [
        Cell(
            noise=noise_title,
            sigma=float(np.sqrt(np.mean(np.square(sigmas)))),
            size=size / pixel if in_mm else size,
            size_mm=size if in_mm else size * pixel,
            contrast=contrast,
            ideal_d=float(np.sqrt(np.mean(np.square(ideal[size, contrast])))) if noise is not None else None,
            scores={
                name: _score(its, (size, contrast), sites, repeats, area if noise is not None else None, seed)
                for name, its in gathered.items()
            },
        )
        for size, contrast in kinds
    ]


@dataclass(frozen=True)
class _Shapes:
    """Lesions of one size at all sites of a crop for a contrast of 1 (slices, rows, columns), masks of each in the
    middle slice, and the profile (SIDE, SIDE) of one.
    """

    image: NDArray[np.float64]
    inside: list[NDArray[np.bool_]]
    around: list[NDArray[np.bool_]]
    profile: NDArray[np.float64]


def _shapes(part: Tissue, size: float, in_mm: bool, sphere: bool) -> _Shapes:
    rows, columns = part.crop
    shape = (len(part.clean), rows.stop - rows.start, columns.stop - columns.start)
    spacing = part.scan.spacing
    pixel = pixel_size(spacing)
    diameter = size if in_mm else size * pixel
    if diameter / pixel < 1 or diameter / pixel > SIDE / 2:
        raise UserError(field="sizes", found=f"{diameter / pixel:.3g} pixels", expected=f"1 to {SIDE // 2} pixels")
    each = [lesion(shape, site, diameter, spacing, sphere) for site in part.sites]
    around = diameter + 2 * AROUND * pixel
    return _Shapes(
        np.sum(each, axis=0),
        [inside(shape, site, diameter, spacing) for site in part.sites],
        [inside(shape, site, around, spacing) for site in part.sites],
        lesion((1, SIDE, SIDE), Site(0, SIDE // 2, SIDE // 2), diameter, spacing)[0],
    )


def _whole(part: Tissue, crop: Array) -> Array:
    """What is added to a crop as an image of the whole slices."""
    image = np.zeros(part.clean.shape, np.float32)
    image[(slice(None), *part.crop)] = crop
    return image


def _around(part: Tissue) -> NDArray[np.bool_]:
    """The flat tissue (rows, columns) of the crop."""
    rows, columns = part.crop
    where = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
    for site in part.sites:
        region(where, site, FLAT)[:] = True
    return where


def _own_noise(part: Tissue) -> NDArray[np.float64]:
    """Power spectrum of what the clean scan shows in the flat squares beside a plane: its own noise."""
    middle = part.clean[part.middle][part.crop].astype(np.float64)
    squares = np.stack([region(middle, site, FLAT) for site in part.sites])
    at = np.arange(FLAT) - FLAT // 2
    squares -= squares.mean((1, 2), keepdims=True)
    for slope in (at[:, None] * np.ones(FLAT), at * np.ones((FLAT, 1))):
        squares -= slope * (np.sum(squares * slope, (1, 2), keepdims=True) / np.sum(slope**2))
    return noise_density(squares, SIDE)


def _gather(
    into: Gathered,
    part: Tissue,
    shapes: Mapping[float, _Shapes],
    kinds: Sequence[Kind],
    out: Array,
    reference: Array,
    where: NDArray[np.bool_],
    channels: NDArray[np.float64],
) -> None:
    """Take from the restored images (1 + kinds, rows, columns), the first without lesions, what is measured."""
    plain = out[0].astype(np.float64)
    squares = np.stack([region(plain - reference, site, SIDE) for site in part.sites])
    into.absent.append(channel_outputs(squares / part.unit, channels))
    for size, its in shapes.items():
        into.deviations.setdefault(size, []).extend(float(plain[mask].std()) / part.unit for mask in its.around)
    for (size, contrast), image in zip(kinds, out[1:], strict=True):
        its, kind = shapes[size], (size, contrast)
        squares = np.stack([region(image - reference, site, SIDE) for site in part.sites])
        into.present.setdefault(kind, []).append(channel_outputs(squares / part.unit, channels))
        added = contrast * part.unit * its.image[part.middle]
        into.kept.setdefault(kind, []).extend(contrast_kept(image, plain, added, mask) for mask in its.inside)
        blobs = count_blobs(plain - reference, its.profile, contrast * part.unit, where)
        into.invented[kind] = into.invented.get(kind, 0) + blobs


def _score(gathered: Gathered, kind: Kind, sites: Sequence[int], repeats: int, area: float | None, seed: int) -> Score:
    """area: of the flat tissue in all draws, cm^2; None where the scan is as it is."""
    kept = gathered.kept[kind]
    share = float(np.mean(kept))
    seen = None
    if area is not None and repeats > 1:
        absent, present = _without_background(gathered.absent, gathered.present[kind], sites, repeats)
        seen = hotelling_observer(absent, present, paired=True, seed=seed)
    return Score.of(
        share,
        bootstrap_interval(kept, resamples=1000, seed=seed),
        visibility(share, kind[1], np.array(gathered.deviations[kind[0]])),
        None if area is None else 100 * gathered.invented[kind] / area,
        seen,
    )


def _without_background(
    absent: Sequence[Array], present: Sequence[Array], sites: Sequence[int], repeats: int
) -> tuple[Array, Array]:
    """Channel outputs (images, channels) around what each site shows without a lesion on average over the draws.

    An observer who knows the background sees the noise alone. The mean takes a share of each draw's deviation with it,
    which is given back; the difference that the lesion makes is of pairs and stays as it is.
    """
    factor = np.sqrt(repeats / (repeats - 1))
    out: tuple[list[Array], list[Array]] = [], []
    for number in range(len(sites)):
        of_scan = slice(number * repeats, (number + 1) * repeats)
        without, with_ = np.stack(absent[of_scan]), np.stack(present[of_scan])
        noise = factor * (without - without.mean(0))
        out[0].append(noise.reshape(-1, noise.shape[-1]))
        out[1].append((noise + with_ - without).reshape(-1, noise.shape[-1]))
    return np.concatenate(out[0]), np.concatenate(out[1])
