"""Scores of restored scans against their references, beside the noisy input and non-local means of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.evaluation.baselines import nlm
from cdm4mi.io import Volume
from cdm4mi.io.atomic import replacing_file
from cdm4mi.io.dicom_scan import looks_like_dicom
from cdm4mi.io.geometry import reorient
from cdm4mi.io.sniff import HEAD, ending, sniff
from cdm4mi.measure.metrics import body_mask, mae, per_patient_mean, psnr, rmse, ssim
from cdm4mi.measure.noise_level import estimate_sigma

METRICS = ("psnr", "ssim", "mae", "rmse")
PREDICTION, NOISY, NLM = "prediction", "noisy input", "non-local means"
WHOLE, BODY = "image", "body"
CT_WINDOW = (-1000.0, 1000.0)
PERCENTILES = (0.0, 99.5)
# What these formats say about position is not enough to tell two grids apart.
_NO_GEOMETRY = {"hdf5", "tiff", "png"}


@dataclass(frozen=True)
class Window:
    """The interval of physical values that is judged: both images are clipped to it, its width is the data range."""

    low: float
    high: float
    why: str

    @property
    def width(self) -> float:
        return self.high - self.low

    def clip(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, self.low, self.high)

    def outside(self, x: np.ndarray) -> float:
        """Share of the values that are clipped."""
        return float(np.mean((x < self.low) | (x > self.high)))


@dataclass(frozen=True)
class Row:
    """The scores of one method on one slice: PSNR (dB), SSIM, MAE and RMSE (physical units)."""

    scan: str
    slice: int
    method: str
    region: str
    scores: dict[str, float]


def is_ct(volume: Volume) -> bool:
    """CT by its header, or, where the format has no modality, by air near -1000 and nothing beyond a CT's numbers."""
    if volume.modality is not None:
        return volume.modality == "CT"
    low, high = np.percentile(volume.array, (1, 99))
    return bool(-3100 <= low <= -850 and high < 4000)


def window_for(reference: Volume, fixed: tuple[float, float] | None = None) -> Window:
    """The user's window; else -1000 to 1000 HU for CT; else percentiles of the whole reference volume."""
    if fixed is not None:
        low, high = fixed
        if not (np.isfinite(fixed).all() and low < high):
            raise UserError(f"range is {low:g} {high:g}, expected two numbers, the lower one first")
        return Window(low, high, "given")
    if is_ct(reference):
        known = reference.modality == "CT"
        return Window(*CT_WINDOW, "default for CT" if known else "default for CT, told from the values")
    finite = reference.array[np.isfinite(reference.array)]
    if finite.size == 0 or finite.min() == finite.max():
        raise UserError("reference is constant, expected an image; give the range (--range LOW HIGH)")
    low, high = (float(v) for v in np.percentile(finite, PERCENTILES))
    if low == high:
        high = float(finite.max())
    return Window(low, high, f"percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of the reference")


def on_grid_of(reference: Volume, volume: Volume, name: str, reference_name: str) -> np.ndarray:
    """The volume's slices (N, rows, columns) in the reference's order and orientation; refused on another grid."""
    if {volume.kind, reference.kind} & _NO_GEOMETRY:
        same = True
    else:
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
    name: str,
    prediction: Volume,
    reference: Volume,
    noisy: Volume | None = None,
    window: Window | None = None,
    regions: Sequence[str] = (WHOLE, BODY),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Score every slice of a restored scan in which the reference shows a body (every slice where none does).

    ``name`` stands for the patient in the rows; ``window`` defaults to ``window_for(reference)``; with ``noisy`` its
    scores and those of its non-local means (sigma estimated from it) come as well; ``progress(done, total)`` is called
    after every slice. Volumes that do not lie on the reference's grid raise UserError.
    """
    window = window or window_for(reference)
    target = reference.slices()
    images = {PREDICTION: on_grid_of(reference, prediction, f"{name} (prediction)", "the reference")}
    if noisy is not None:
        images[NOISY] = on_grid_of(reference, noisy, f"{name} (noisy)", "the reference")
    bodies = body_mask(target, "CT" if is_ct(reference) else reference.modality)
    shown = [k for k in range(len(target)) if bodies[k].any()]
    if not shown:
        shown, bodies = list(range(len(target))), np.ones_like(bodies)
    sigma = 0.0
    if noisy is not None:
        sigma = float(np.median([estimate_sigma(images[NOISY][k]) for k in shown]))
    rows = []
    for done, k in enumerate(shown, 1):
        candidates = {method: stack[k] for method, stack in images.items()}
        if noisy is not None:
            candidates[NLM] = nlm(candidates[NOISY], sigma)
        for method, image in candidates.items():
            for region in regions:
                mask = bodies[k] if region == BODY else None
                try:
                    scores = _score(window.clip(image), window.clip(target[k]), window.width, mask)
                except UserError as error:
                    raise UserError(f"{name}, slice {k}, {method}: {error}") from None
                rows.append(Row(name, k, method, region, scores))
        progress(done, len(shown))
    return rows


def _score(x: np.ndarray, ref: np.ndarray, width: float, mask: np.ndarray | None) -> dict[str, float]:
    return {
        "psnr": psnr(x, ref, width, mask),
        "ssim": ssim(x, ref, width, mask=mask),
        "mae": mae(x, ref, mask),
        "rmse": rmse(x, ref, mask),
    }


def summary(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Mean scores by (method, region): over a scan's slices, then over scans; in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.region), []).append(row)
    return {key: per_patient_mean([(row.scan, row.scores) for row in group]) for key, group in groups.items()}


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
    if any(_is_dicom(p) for p in files):
        return None
    files = [p for p in files if sniff(p, p.name) is not None]
    entries = files or [p for p in visible if p.is_dir()]
    if not entries:
        raise UserError(f"{path}: holds no scan, expected DICOM files, NIfTI files or folders of them")
    return {_stem(p): p for p in entries}


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return looks_like_dicom(file.read(HEAD))


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.name[: len(path.name) - len(ending(path))]


def write_csv(path: Path, rows: Sequence[Row], windows: dict[str, Window]) -> None:
    """One line a slice, method and region, with the window that it was judged in."""
    with replacing_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "slice", "method", "region", *METRICS, "range_low", "range_high", "ssim_definition"])
        for row in rows:
            window = windows[row.scan]
            scores = [f"{row.scores[metric]:.6g}" for metric in METRICS]
            writer.writerow(
                [
                    row.scan,
                    row.slice,
                    row.method,
                    row.region,
                    *scores,
                    f"{window.low:g}",
                    f"{window.high:g}",
                    "gaussian",
                ]
            )
