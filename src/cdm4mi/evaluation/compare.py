"""Scans to compare: brought to the reference's grid, paired by name, each beside the noisy input and its NLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Row
from cdm4mi.evaluation.baselines import nlm
from cdm4mi.evaluation.metrics import Uncertainty
from cdm4mi.evaluation.resolve import ResolvedProtocol
from cdm4mi.evaluation.scores import bodies_of, counted_slices, score_stack
from cdm4mi.files import readable
from cdm4mi.io import Volume
from cdm4mi.io.detect import detect
from cdm4mi.io.formats import is_positioned
from cdm4mi.io.geometry import reorient
from cdm4mi.io.padding import padding_as_nan
from cdm4mi.io.scan_file import ScanFile, ending
from cdm4mi.measure.noise_level import estimate_noise

PREDICTION, NOISY, NLM = "prediction", "noisy input", "non-local means"


def on_grid_of(reference: Volume, volume: Volume, name: str, reference_name: str) -> NDArray[Any]:
    """The volume's slices (N, rows, columns) in the reference's order and orientation; refused on another grid."""
    same = True
    if is_positioned(volume.kind) and is_positioned(reference.kind):
        spacing = min(reference.spacing)
        same = np.allclose(volume.affine, reference.affine, rtol=0, atol=0.01 * spacing)
    if sorted(volume.shape) != sorted(reference.shape) or (same and volume.shape != reference.shape):
        sizes = (" x ".join(map(str, v.shape)) for v in (volume, reference))
        raise UserError("{}: has {} voxels, expected the {} of {}".format(name, *sizes, reference_name))
    if same:
        return volume.slices()
    try:
        array = reorient(volume.array, volume.affine, reference.shape, reference.affine)
    except UserError:
        raise UserError(
            f"{name}: lies elsewhere in the patient than {reference_name} (affines differ), expected the same voxels"
        ) from None
    return array.reshape(-1, *array.shape[-2:])


def compare(
    patient: str,
    scan: str,
    prediction: Volume,
    reference: Volume,
    resolved: ResolvedProtocol,
    noisy: Volume | None = None,
    sd: Volume | None = None,
    samples: Sequence[Volume] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Score a restored scan, and with ``noisy`` that and its non-local means (sigma estimated from it) as well.

    sd, samples: the prediction's own account of its error, as a map or as draws, for coverage, width and CRPS.
    ``progress(done, total)`` is called after every slice. Volumes off the reference's grid raise UserError.
    """

    target = reference.slices()
    nothing = np.zeros(target.shape, bool) if reference.padding is None else reference.padding.reshape(target.shape)

    def on_grid(volume: Volume, what: str) -> NDArray[Any]:
        """The volume's slices; NaN counts as the reference's value where that has padding, and is refused elsewhere."""
        given = padding_as_nan(volume, volume.source)
        values = on_grid_of(reference, given, f"{scan} ({what})", "the reference")
        return np.where(nothing & np.isnan(values), target, values) if given is not volume else values

    images = {PREDICTION: on_grid(prediction, "prediction")}
    bodies = bodies_of(target, resolved)
    if noisy is not None:
        images[NOISY] = on_grid(noisy, "noisy")
        shown = counted_slices(resolved, bodies)
        planes = np.moveaxis(images[NOISY], -1, 1) if resolved.colour else images[NOISY][:, None]
        found = np.concatenate([planes[k] for k in shown])
        sigmas = estimate_noise(found).of_slices(len(found)).reshape(len(shown), -1)
        images[NLM] = images[NOISY].copy()
        for done, k in enumerate(shown, 1):
            smooth = [nlm(plane, float(sigma)) for plane, sigma in zip(planes[k], sigmas[done - 1], strict=True)]
            images[NLM][k] = np.stack(smooth, -1) if resolved.colour else smooth[0]
            progress(done, 2 * len(shown))
    stated = {}
    if samples:
        stated[PREDICTION] = Uncertainty(
            samples=np.stack([on_grid(v, f"sample {n}") for n, v in enumerate(samples, 1)])
        )
    elif sd is not None:
        stated[PREDICTION] = Uncertainty(sd=on_grid(sd, "standard deviation"))
    filtered = noisy is not None
    return score_stack(
        patient,
        scan,
        images,
        target,
        resolved,
        stated,
        bodies,
        lambda done, total: progress(done + filtered * total, (1 + filtered) * total),
    )


def pair_scans(prediction: Path, *others: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Scans to compare: the paths themselves, or the entries of folders of scans, matched by name without its ending.

    A folder of DICOM files is one scan; a folder of NIfTI files, or of folders, holds several. Every entry of
    ``prediction`` needs its counterpart in each of the others.
    """
    entries = _entries(prediction)
    if entries is None:
        yield _stem(prediction), (prediction, *others)
        return
    found = []
    for other in others:
        counterparts = _entries(other)
        if counterparts is None:
            raise UserError(f"{other}: is one scan, expected a folder of scans as {prediction} is")
        missing = [name for name in entries if name not in counterparts]
        if missing:
            raise UserError(f"{other}: holds no scan named {missing[0]}, expected all {len(entries)} of {prediction}")
        found.append(counterparts)
    for name, path in entries.items():
        yield name, (path, *(counterparts[name] for counterparts in found))


def _entries(path: Path) -> dict[str, Path] | None:
    if not path.exists():
        raise UserError(f"{path}: does not exist, expected a scan or a folder of scans")
    if not path.is_dir():
        return None
    visible = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
    files = [p for p in visible if p.is_file()]
    formats = {p: detect(ScanFile(p.name, p)) for p in files}
    if "dicom" in formats.values():
        return None
    files = [p for p, kind in formats.items() if kind is not None]
    entries = files or [p for p in visible if p.is_dir()]
    if not entries:
        raise UserError(f"{path}: holds no scan, expected DICOM files, NIfTI files or folders of them")
    return {_stem(p): p for p in entries}


def _stem(path: Path) -> str:
    return readable(path.name if path.is_dir() else path.name[: len(path.name) - len(ending(path))])
