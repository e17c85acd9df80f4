"""Quality against network calls: how a trained model is best sampled, found on scans that it was not trained on."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.choices import SOLVERS
from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.acquisition import Spacing
from cdm4mi.data.manifest import is_store
from cdm4mi.data.names import patient_hash, pseudonym
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.data.sources import load_patients
from cdm4mi.diffusion.solvers.make import make_solver
from cdm4mi.diffusion.times import time_list
from cdm4mi.errors import UserError
from cdm4mi.evaluation.metrics import Scores, mean_scores
from cdm4mi.files import replacing_file
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.measure.metrics import psnr, ssim
from cdm4mi.measure.spectrum import spectrum_error
from cdm4mi.models.checkpoint import TrainedModel

CALLS = (1, 2, 4, 10, 20, 50)
SPECTRUM_MARGIN, PSNR_MARGIN = 1.1, 0.1
RULE = (
    "the fewest network calls among the settings whose spectrum error is within 10 % of the least of all and whose "
    "PSNR is within 0.1 dB of the best of those"
)
"""Texture comes first: of samples alone PSNR would choose the smoothest, which fewer calls always make."""
DATA_RANGE = 2.0
LEAST_FOREGROUND = 0.3
BATCH = 16


@dataclass(frozen=True)
class Crop:
    """A clean crop (rows, columns) and its condition (channels, rows, columns) on [-1, 1], its level, and whose."""

    patient: str
    x0: NDArray[Any]
    y: NDArray[Any]
    level: float
    spacing: Spacing


@dataclass
class HeldOut:
    """Noisy crops of patients that the model was not trained on; how many were, and what must be said of the choice."""

    crops: list[Crop]
    patients: int
    left_out: int
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One way to sample, its network calls, and means over the patients: dB, SSIM, dB, seconds an image."""

    name: str
    settings: dict[str, Any]
    calls: int
    psnr: float
    ssim: float
    spectrum_error: float
    seconds: float


def held_out_crops(model: TrainedModel, data: Path, count: int, seed: int = 0) -> HeldOut:
    """``count`` crops of the training size with the training noise, spread evenly over the patients of ``data``.

    data: clean scans (a file, a folder; a store's validation patients; HDF5 patches for a model trained on them).
    Patients that the checkpoint says it was trained on are left out. Raises UserError where none remains.
    """
    config = model.config.data
    if model.config.model.channels != 1 or config.contrasts:
        what = "data.contrasts" if config.contrasts else "colour images"
        raise UserError(f"{model.name}: is a model of {what}, expected one of grey images (alone, or with neighbours)")
    kind = "store" if is_store(data) else "hdf5" if config.kind == "hdf5" else "volumes"
    changes = {"kind": kind, "paths": [str(data)], "exclude_patients": [], "val_patients": None}
    every = load_patients(config.model_copy(update=changes), model.config.model.image_size, model.config.seed)
    seen = set(model.about.data.patients_train)
    fresh = [p for p in every if p.split in (None, "val") and not _hashes(p) & seen]
    notices = [] if seen else ["the checkpoint does not say whom it was trained on: nobody is left out for it"]
    if not fresh:
        raise UserError(
            f"{data}: found {len(every)} patient(s), all of whom {model.name} was trained on, expected others "
            "(quality on patients that were learnt says nothing)"
        )
    chosen = [fresh[i] for i in sorted({round(i) for i in np.linspace(0, len(fresh) - 1, min(count, len(fresh)))})]
    return HeldOut(list(_crops(model, chosen, count, seed)), len(chosen), len(every) - len(fresh), notices)


def _hashes(patient: Patient) -> set[str]:
    """The patient as checkpoints name one: by the name, and by what a store makes of the name."""
    return {patient_hash(patient.name), patient_hash(pseudonym(patient.name))}


def _crops(model: TrainedModel, patients: Sequence[Patient], count: int, seed: int) -> Iterator[Crop]:
    for number, patient in enumerate(patients):
        each = (count + len(patients) - 1 - number) // len(patients)
        pairs = PairDataset(
            [patient],
            model.config.data.noise,
            model.config.model.image_size,
            seed + number,
            least_foreground=LEAST_FOREGROUND,
            length=each,
            validation=True,
        )
        for k in range(each):
            pair = pairs[k]
            x0, y = pair["x0"][0].numpy(), pair["y"].numpy()
            yield Crop(patient.name, x0, y, float(pair["sigma"]), patient.spacing)


def ways_for(model: TrainedModel) -> list[tuple[str, dict[str, Any]]]:
    """(name, sampling settings) of what is compared: the solvers that the path takes, at each number of calls.

    One call is the same for every solver. The checkpoint's own times, where it has some, stand first.
    """
    path = model.process.path
    saved = model.config.sampling
    ways: list[tuple[str, dict[str, Any]]] = []
    if saved.times is not None:
        ways.append(("the checkpoint's times", {"solver": saved.solver, "eta": saved.eta, "times": saved.times}))
    ways.append(("one call", {"solver": "ddim", "eta": 0.0, "spacing": "trailing", "steps": 1, "times": None}))
    for way in _ways():
        entry = SOLVERS[way["solver"]]
        name = f"{entry.title}, eta {way['eta']:g}" if entry.takes_eta else entry.title
        for calls in CALLS:
            steps = (calls - 1) // entry.calls + 1
            if steps < 2 or steps > path.timesteps:
                continue
            try:
                make_solver(way["solver"], way["eta"], path)
                time_list(way["spacing"], path, steps)
            except UserError:  # not defined on this path
                continue
            ways.append((name, way | {"steps": steps, "times": None}))
    return ways


def _ways() -> Iterator[dict[str, Any]]:
    """Solvers with the spacing that their entry tries them with; those that take eta, as noisy as ddpm too."""
    for solver, entry in SOLVERS.items():
        if entry.study is not None:
            yield {"solver": solver, "eta": 0.0, "spacing": entry.study}
            if entry.takes_eta:
                yield {"solver": solver, "eta": 1.0, "spacing": "linspace"}


def study(
    model: TrainedModel, crops: Sequence[Crop], seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[Row]:
    """Restore the crops in every way of ``ways_for``, one sample each, and measure. progress: (calls done, all)."""
    ways = ways_for(model)
    restorers = [SliceRestorer(model, _sampling(model, settings)) for _, settings in ways]
    calls = [restorer.sampler.network_calls(1.0) for restorer in restorers]
    rows = []
    for (name, settings), restorer, n in zip(ways, restorers, calls, strict=True):
        began = time.monotonic()
        out = _restored(restorer, crops, seed)
        seconds = (time.monotonic() - began) / len(crops)
        by_patient: dict[str, list[Scores]] = {}
        for image, crop in zip(out, crops, strict=True):
            scores = {"psnr": psnr(image, crop.x0, DATA_RANGE), "ssim": ssim(image, crop.x0, DATA_RANGE)}
            scores["spectrum_error"] = spectrum_error(image, crop.x0)
            by_patient.setdefault(crop.patient, []).append(scores)
        means = mean_scores([mean_scores(of_patient) for of_patient in by_patient.values()])
        rows.append(Row(name, settings, n, **means, seconds=seconds))
        if progress is not None:
            progress(sum(calls[: len(rows)]), sum(calls))
    return rows


def _sampling(model: TrainedModel, settings: dict[str, Any]) -> SamplingConfig:
    changes = {"estimate": "sample", "start_from": "noise", "start_level": None} | settings
    return model.config.sampling.model_copy(update=changes)


def _restored(restorer: SliceRestorer, crops: Sequence[Crop], seed: int) -> NDArray[Any]:
    """One sample of each crop, clipped to [-1, 1]; crops of one level and spacing share batches."""
    groups: dict[tuple[float, Spacing], list[int]] = {}
    for i, crop in enumerate(crops):
        groups.setdefault((crop.level, crop.spacing), []).append(i)
    out = np.empty((len(crops), *crops[0].x0.shape), np.float32)
    for (level, spacing), members in groups.items():
        for first in range(0, len(members), BATCH):
            part = members[first : first + BATCH]
            y = np.stack([crops[i].y for i in part])
            out[part] = restorer.restore(y, level, seed=seed, indices=part, spacing=spacing)[:, 0]
    return out.clip(-1, 1)


def knee(rows: Sequence[Row]) -> Row:
    """The way that ``RULE`` chooses."""
    least = min(row.spectrum_error for row in rows)
    textured = [row for row in rows if row.spectrum_error <= SPECTRUM_MARGIN * least]
    best = max(row.psnr for row in textured)
    return min((r for r in textured if r.psnr >= best - PSNR_MARGIN), key=lambda r: (r.calls, -r.psnr))


def as_default(model: TrainedModel, row: Row) -> SamplingConfig:
    """The model's sampling section with the chosen way in it; what is estimated by default stays as it is."""
    return _sampling(model, row.settings).model_copy(update={"estimate": model.config.sampling.estimate})


def write_csv(path: Path, rows: Sequence[Row], chosen: Row) -> None:
    """One line a way."""
    with replacing_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ("solver", "eta", "spacing", "steps", "times")
        writer.writerow([*names, "calls", "psnr_db", "ssim", "spectrum_error_db", "seconds_per_image", "chosen"])
        for row in rows:
            settings = ["" if row.settings.get(n) is None else row.settings[n] for n in names]
            figures = [f"{v:.5g}" for v in (row.psnr, row.ssim, row.spectrum_error, row.seconds)]
            writer.writerow([*settings, row.calls, *figures, int(row is chosen)])
