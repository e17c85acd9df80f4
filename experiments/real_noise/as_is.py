"""Scans as they came from the scanner: what a model takes away from them, in pictures and figures, and its texture.

Run from the checkout (one thread):
    python -m experiments.real_noise.as_is [--model shipped] [--pictures FOLDER] [--out FILE]

No clean image is known of them. What is taken away should be noise: no shift of any tissue's mean, no likeness to the
edges. Texture is judged where there is a reference, on rows of the study.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import cdm4mi
from cdm4mi.inference.record import NoiseLevel
from cdm4mi.io import Volume
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.measure.pictures import comparison_picture
from cdm4mi.measure.spectrum import spectrum_error
from cdm4mi.models.checkpoint import TrainedModel
from experiments.real_noise.rows import ROWS, WEIGHTED, cases, denoised, tuned
from experiments.real_noise.scans import Scan, repeats, scan
from experiments.real_noise.study import loaded, table, tissue_errors

SCANS = ("head CT", "skull CT", "spine CT", "b = 0")
WEIGHTED_TITLE = "diffusion-weighted"
TEXTURED = ("ct-dose-25", "ct-ramp", "t1-rician-9", "t1-coils")
SHOWN = {"CT": (-100.0, 200.0)}
"""Window of the pictures, HU; MR: that of the scan."""


@dataclass(frozen=True)
class Taken:
    """One scan before and after, (N, H, W) in its units, and what was measured of its noise."""

    title: str
    scan: Scan
    before: np.ndarray
    after: np.ndarray
    level: NoiseLevel


def take(title: str, model: TrainedModel) -> Taken:
    """Restore one of ``SCANS``, or a diffusion-weighted volume beside b = 0, as ``cdm4mi denoise`` does."""
    of = scan("b = 0" if title == WEIGHTED_TITLE else title)
    before = of.volume
    if title == WEIGHTED_TITLE:
        data = repeats()
        array = data.array[WEIGHTED[0]]
        before = Volume(array[len(array) // 2 - 1 : len(array) // 2 + 1], data.affine, "MR")
    restoration = cdm4mi.denoise(before, model)
    return Taken(title, of, before.array, restoration.volume.array, restoration.record.noise_level)


def edge_likeness(taken: Taken) -> float:
    """Correlation of the removed values' magnitude with the restored image's gradient, over the body.

    Both smoothed by a pixel. 0 for noise that is the same everywhere; a network that wears edges off gives much more.
    """
    removed = ndimage.gaussian_filter(np.abs(taken.before - taken.after), (0, 1, 1))
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(image, 1) for image in taken.after])
    body = taken.scan.body[: len(removed)] if removed.shape == taken.scan.body.shape else removed > -1
    return float(np.corrcoef(removed[body], gradient[body])[0, 1])


def described(taken: Taken) -> list[str]:
    """A line of the table."""
    window, level = taken.scan.window, taken.level
    unit = 1.0 if window.modality == "CT" else 100 / window.high
    removed = np.std(taken.before - taken.after) * unit
    shift = tissue_errors(taken.after, taken.before, window)
    return [
        taken.title,
        f"{level.value * unit:.1f}",
        " / ".join(f"{c:.2f}" for c in level.correlations or ()),
        f"{removed:.1f}",
        f"{edge_likeness(taken):.2f}",
        ", ".join(f"{name} {unit * error:+.2f}" for name, error in shift.items()),
    ]


def draw(taken: Taken, path: Path) -> None:
    """The first slice: as it is, restored, and what was taken away."""
    window, image = taken.scan.window, taken.before[0]
    rows, columns = (n // 2 for n in image.shape)
    side = min(image.shape) // 4
    comparison_picture(
        path,
        {"restored": taken.after[0], "as it is": image},
        SHOWN.get(window.modality or "", (0.0, float(np.percentile(taken.after, 99.5)))),
        zoom=(rows - side // 2, columns - side // 2, side),
        differences_to="as it is",
        unit="HU" if window.modality == "CT" else "",
    )


def textures(model: TrainedModel) -> str:
    """Spectrum error of the model and of non-local means on rows whose reference is known."""
    lines = []
    for key in TEXTURED:
        row, by_model, by_nlm, noisy = ROWS[key], [], [], []
        settings = tuned(row, "nlm")
        for of, case in cases(row):
            square = (slice(None), *of.square())
            reference = case.reference[square]
            x = cdm4mi.denoise(of.with_array(case.y), model).volume.array[square]
            by_model.append(spectrum_error(x, reference))
            sigma = estimate_noise(case.y).sigma
            by_nlm.append(spectrum_error(denoised("nlm", settings, of, case.y, sigma), reference))
            noisy.append(spectrum_error(case.y[square], reference))
        lines.append([row.title, *(f"{np.mean(found):.2f}" for found in (noisy, by_nlm, by_model))])
    return "Spectrum error in dB\n\n" + table(["", "input", "NLM", "model"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shipped", help="a checkpoint, or shipped")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each scan")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (model,) = loaded([options.model]).values()
    lines = []
    for title in (*SCANS, WEIGHTED_TITLE):
        taken = take(title, model)
        lines.append(described(taken))
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            draw(taken, options.pictures / f"{title.replace(' ', '-').replace('=', 'is')}.png")
    heads = [
        "scan",
        "sigma measured",
        "correlations",
        "removed, standard deviation",
        "likeness to edges",
        "shift of the mean",
    ]
    units = "In HU (CT) or percent of the window's upper end (MR); correlations with the next row and column"
    text = f"{units}\n\n{table(heads, lines)}\n\n{textures(model)}"
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
