"""Models on the noise that scanners make, blind, on people never trained on; tuned classical methods beside them.

Run from the checkout (one thread; the classical methods take longest, once, and are kept in runs/real_noise/cache):
    python -m experiments.real_noise.study [--model shipped CHECKPOINT ...] [--only ROW ...] [--told] [--out FILE]

PSNR, measured noise level, coverage of the 90 % interval, mean error by tissue; error on diffusion MR acquired twice.
BM3D is there where its package is (an optional extra). CONTRIBUTING.md says where the scans are looked for.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import cdm4mi
from cdm4mi.inference.calibration import HALF_WIDTH
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.intensity import foreground
from cdm4mi.io import Volume
from cdm4mi.measure.tissue import LEAST, tissue_classes
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.window import IntensityWindow
from experiments.real_noise.noises import Noisy
from experiments.real_noise.rows import (
    METHODS,
    ROWS,
    WEIGHTED,
    Row,
    cases,
    classical,
    psnr,
    repeat_classical,
    repeat_error,
    repeat_sigma,
)
from experiments.real_noise.scans import Scan, repeats

SAMPLES, STEPS, SAMPLED_SIDE, SAMPLED_SCANS = 8, 10, 96, 2
"""How the uncertainty is sampled: one slice of each of the first scans of a row."""
REPEATS = "repeats"


@dataclass
class Judged:
    """One model on one row: by scan."""

    psnr: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)
    over_patient: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)
    calibrated: bool = False
    errors: dict[str, list[float]] = field(default_factory=dict)


def judge(model: TrainedModel, row: Row, told: bool = False) -> Judged:
    """Restore every scan of a row as ``cdm4mi denoise`` does, with nothing but the noisy scan (told: and its level)."""
    out = Judged()
    for of, case in cases(row):
        restoration = cdm4mi.denoise(of.with_array(case.y), model, noise=case.sigma if told else None)
        rows, columns = of.square()
        x, reference = restoration.volume.array[:, rows, columns], case.reference[:, rows, columns]
        out.psnr.append(psnr(x, reference, of.window))
        unit = 1.0 if row.modality == "CT" else 100 / of.window.high
        level = restoration.record.noise_level
        for values, sigma in ((out.true, case.sigma), (out.measured, level.value), (out.used, level.used)):
            values.append(unit * sigma)
        if row.modality == "CT":
            body = foreground(case.reference, row.modality)
            out.over_patient.append(unit * float(np.sqrt(np.mean(np.square((case.y - case.reference)[body])))))
        for name, error in tissue_errors(x, reference, of.window).items():
            out.errors.setdefault(name, []).append(unit * error)
        if len(out.covered) < SAMPLED_SCANS:
            covered, out.calibrated = coverage(model, of, case, restoration.record)
            out.covered.append(covered)
    return out


def tissue_errors(x: np.ndarray, reference: np.ndarray, window: IntensityWindow) -> dict[str, float]:
    """Mean error by tissue in slices (N, H, W), their units: by HU in CT; air and thirds of the foreground in MR."""
    found: dict[str, list[np.ndarray]] = {}
    low, high = 0.0, 0.0
    if window.modality != "CT":
        inside = reference[foreground(reference, window.modality)]
        low, high = (float(q) for q in np.quantile(inside, (1 / 3, 2 / 3)))
    for image, truth, body in zip(x, reference, foreground(reference, window.modality), strict=True):
        classes = tissue_classes(truth, window.modality, body)
        if window.modality != "CT":
            dark, bright = truth < low, truth >= high
            classes = {"air": ~body, "dark": body & dark, "middle": body & ~dark & ~bright, "bright": body & bright}
        for name, at in classes.items():
            found.setdefault(name, []).append((image - truth)[at])
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: float(errors.mean()) for name, errors in joined.items() if errors.size >= LEAST}


def coverage(model: TrainedModel, of: Scan, case: Noisy, record: DenoiseRecord) -> tuple[float, bool]:
    """Share of the middle slice's foreground inside the 90 % interval of the mean of 8, and whether it was calibrated.

    A square in the middle, at the noise level and in the window that the whole slices gave.
    """
    rows, columns = of.square(side=SAMPLED_SIDE)
    middle = len(case.y) // 2
    volume = Volume(case.y[middle : middle + 1, rows, columns], of.volume.affine, of.volume.modality)
    sampling = changed(model.config.sampling, estimate="mean-of-k", steps=STEPS, samples=SAMPLES)
    restored = Restorer(model, sampling).restore(
        volume, noise=record.noise_level.value, normalisation=record.normalisation, seed=1
    )
    assert restored.spread is not None and restored.record.uncertainty is not None
    truth = case.reference[middle : middle + 1, rows, columns]
    error = np.abs(restored.volume.array - truth)
    inside = foreground(truth, of.window.modality)
    hits = (error <= HALF_WIDTH * restored.spread.array)[inside]
    return float(hits.mean()), restored.record.uncertainty.calibrated


def repeat_judge(model: TrainedModel) -> tuple[float, float, float]:
    """Error on the repeats, as it is and with the repeats' bias, and the noise level that was measured.

    Each volume is restored as a scan of its own. The repeat is a magnitude, whose noise lifts it to about
    sqrt(A^2 + sigma^2); a model that gives A is put to it with that bias too.
    """
    data = repeats()
    out, levels = [], []
    for i in WEIGHTED:
        restoration = cdm4mi.denoise(Volume(data.array[i], data.affine, "MR"), model)
        out.append(restoration.volume.array)
        levels.append(restoration.record.noise_level.value)
    x = np.stack(out)
    return repeat_error(x), repeat_error(np.hypot(x, repeat_sigma())), float(np.mean(levels))


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def best(values: list[float | None], least: bool = False) -> list[str]:
    """Numbers as text, the best one bold, a dash for none."""
    found = [v for v in values if v is not None]
    top = min(found) if least else max(found)
    shown = ["-" if v is None else f"{v:.{1 if least else 2}f}" for v in values]
    return [f"**{text}**" if v == top else text for text, v in zip(shown, values, strict=True)]


def input_psnr(row: Row) -> float:
    """What is gained over: PSNR of the noisy scans."""
    scores = []
    for of, case in cases(row):
        square = (slice(None), *of.square())
        scores.append(psnr(case.y[square], case.reference[square], of.window))
    return float(np.mean(scores))


def row_tables(models: dict[str, TrainedModel], rows: list[Row], told: bool) -> list[str]:
    """PSNR of every method, then each model's noise levels, coverage and mean errors."""
    lines: list[list[str]] = []
    details: dict[str, list[list[str]]] = {title: [] for title in models}
    for row in rows:
        print(f"{row.key} ...", file=sys.stderr, flush=True)
        scores = [input_psnr(row), *(classical(row, method, told) for method in METHODS)]
        for title, model in models.items():
            judged = judge(model, row, told)
            scores.append(float(np.mean(judged.psnr)))
            details[title].append([row.title, *described(judged)])
        lines.append([row.title, *best(scores)])
    out = ["PSNR in dB, mean over the scans\n\n" + table(["", "input", *METHODS.values(), *models], lines)]
    heads = ["", "sigma in the square", "measured", "used", "coverage of the 90 % interval", "mean error by tissue"]
    for title, its in details.items():
        units = "sigma and mean error in HU (CT) or percent of the window's upper end (MR)"
        out.append(f"{title}: {units}\n\n{table(heads, its)}")
    return out


def repeat_table(models: dict[str, TrainedModel]) -> str:
    """The error on diffusion MR acquired twice."""
    print(f"{REPEATS} ...", file=sys.stderr, flush=True)
    judged = [repeat_judge(model) for model in models.values()]
    errors = [repeat_error(repeats().array[list(WEIGHTED)]), *(repeat_classical(method) for method in METHODS)]
    lines = [["5 volumes", *best([*errors, *(error for error, _, _ in judged)], least=True)]]
    lines.append(
        ["with the bias of the repeat's noise", *("" for _ in errors), *(f"{lifted:.1f}" for _, lifted, _ in judged)]
    )
    return (
        "Diffusion MR acquired twice: root mean square error to the repeat without the repeat's own noise. "
        f"Noise level {repeat_sigma():.1f} by the repeats, which the classical methods are given; "
        f"measured blind {judged[0][2]:.1f}\n\n" + table(["", "input", *METHODS.values(), *models], lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["shipped"], help="checkpoints, or shipped")
    parser.add_argument("--only", nargs="+", default=[*ROWS, REPEATS], choices=[*ROWS, REPEATS], metavar="ROW")
    parser.add_argument("--told", action="store_true", help="give every method the true noise level of the rows")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    models = loaded(options.model)
    rows = [ROWS[key] for key in ROWS if key in options.only]
    parts = row_tables(models, rows, options.told) if rows else []
    if REPEATS in options.only:
        parts.append(repeat_table(models))
    parts.append(f"{time.process_time() - began:.0f} processor seconds")
    text = "\n\n".join(parts)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def loaded(names: list[str]) -> dict[str, TrainedModel]:
    """Models by what the tables call them: the file's name where it is nobody else's."""
    stems = [Path(name).stem for name in names]
    titles = stems if len(set(stems)) == len(names) else names
    return {title: load_model(name) for title, name in zip(titles, names, strict=True)}


def described(judged: Judged) -> list[str]:
    """The cells of one row of a model's own table."""
    sigmas = [f"{np.mean(values):.1f}" for values in (judged.true, judged.measured, judged.used)]
    if judged.over_patient and abs(np.mean(judged.over_patient) / np.mean(judged.true) - 1) > 0.05:
        sigmas[0] += f" ({np.mean(judged.over_patient):.1f} over the patient)"
    bias = ", ".join(f"{name} {np.mean(errors):+.1f}" for name, errors in judged.errors.items())
    return [*sigmas, f"{100 * np.mean(judged.covered):.0f} %{'' if judged.calibrated else ' (not calibrated)'}", bias]


if __name__ == "__main__":
    main()
