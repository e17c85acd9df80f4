"""How much of a small lesion's contrast a restoration keeps: discs put into real CT, and the strength of a blend.

Run from the checkout (one thread):
    python -m experiments.real_noise.lesions [--model shipped CHECKPOINT ...] [--out FILE] [--picture FILE.png]

The scan is a slice of a head CT that no model was trained on, as it is and with the noise of a lower dose. The discs
lie in its flattest soft tissue, all at once; it is restored blind, with and without them, with the same noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy import ndimage

import cdm4mi
from cdm4mi.evaluation.baselines.nlm import NlmSettings, nlm
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.models.checkpoint import TrainedModel
from experiments.real_noise.rows import ROWS, noisy, psnr, tuned
from experiments.real_noise.scans import Scan, scan
from experiments.real_noise.study import loaded, table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZES = (5, 7, 10)
"""Diameters in pixels."""
CONTRASTS = (-20.0, -40.0, -60.0)
"""HU."""
DOSES = {"as it is": None, "25 % of the dose": "ct-dose-25", "10 % of the dose": "ct-dose-10"}
PLACES, APART = 12, 32
"""Discs, and the pixels between their middles."""
SOFT = (0.0, 80.0)
"""HU of the soft tissue that they lie in."""
BLUR = 0.7
"""Pixels: a disc's edge is no sharper than a scanner's."""
RING = 8
"""Pixels around a disc that the local standard deviation is of."""
SHOWN_SIZE, SHOWN_CONTRAST = 7, -40.0
"""The disc of the study of strength."""
STRENGTHS = np.linspace(0, 1, 11)

Place = tuple[int, int, int]
"""Slice, row, column."""


@dataclass(frozen=True)
class Discs:
    """Discs of one size at some places: what is added to slices (N, H, W) for a contrast of 1, and masks of each."""

    image: np.ndarray
    inside: list[tuple[Place, np.ndarray]]
    around: list[tuple[Place, np.ndarray]]

    def contrast(self, difference: np.ndarray) -> float:
        """Mean over the discs of a difference of images, over the mean there of what was added for 1."""
        values = [difference[place[0]][mask].mean() / self.image[place[0]][mask].mean() for place, mask in self.inside]
        return float(np.mean(values))

    def deviation(self, image: np.ndarray) -> float:
        """Root mean square over the places of the standard deviation around each, in an image without discs."""
        return float(np.sqrt(np.mean([image[place[0]][mask].var() for place, mask in self.around])))


def places(of: Scan) -> list[Place]:
    """The flattest places of soft tissue, the flattest first."""
    images = of.volume.array
    size = 2 * RING + max(SIZES) + 1
    mean = ndimage.uniform_filter(images, (0, size, size))
    deviation = np.sqrt(
        np.maximum(ndimage.uniform_filter(images.astype(np.float64) ** 2, (0, size, size)) - mean**2, 0)
    )
    deviation[(mean < SOFT[0]) | (mean > SOFT[1])] = np.inf
    found: list[Place] = []
    while len(found) < PLACES:
        k, row, column = (int(i) for i in np.unravel_index(np.argmin(deviation), deviation.shape))
        if not np.isfinite(deviation[k, row, column]):
            break
        found.append((k, row, column))
        deviation[k, max(0, row - APART) : row + APART + 1, max(0, column - APART) : column + APART + 1] = np.inf
    return found


def flattest(of: Scan) -> Scan:
    """The slice with the flattest soft tissue alone."""
    k = places(of)[0][0]
    padding = None if of.volume.padding is None else of.volume.padding[k : k + 1]
    volume = replace(of.volume, array=of.volume.array[k : k + 1], padding=padding)
    return replace(of, name=f"{of.name}, slice {k}", volume=volume)


def discs(of: Scan, at: list[Place], size: int) -> Discs:
    """Discs of a diameter at all places."""
    shape = of.volume.shape
    image, inside, around = np.zeros(shape), [], []
    grid = np.indices(shape[1:])
    for place in at:
        distance = np.hypot(grid[0] - place[1], grid[1] - place[2])
        image[place[0]] += np.clip(size / 2 - distance + 0.5, 0, 1)
        inside.append((place, distance <= size / 2))
        around.append((place, distance <= size / 2 + RING))
    return Discs(ndimage.gaussian_filter(image, (0, BLUR, BLUR)), inside, around)


def restored(model: TrainedModel, of: Scan, y: np.ndarray) -> np.ndarray:
    """Slices as ``cdm4mi denoise`` restores them."""
    return cdm4mi.denoise(of.with_array(y), model).volume.array


def by_nlm(settings: NlmSettings, of: Scan, y: np.ndarray) -> np.ndarray:
    """Slices by non-local means at the measured level."""
    sigma = estimate_noise(y).sigma
    return np.stack([nlm(image, sigma, settings) for image in y])


Method = Callable[[np.ndarray], np.ndarray]
"""From noisy slices (N, H, W) in HU to restored ones."""


@dataclass
class Measured:
    """One size and contrast on one input; contrast kept (1: all) and visibility by method, the input first."""

    dose: str
    size: int
    hu: float
    kept: dict[str, float]
    visibility: dict[str, float]


def measure(dose: str, y: np.ndarray, by_size: dict[int, Discs], methods: dict[str, Method]) -> list[Measured]:
    """Every size and contrast of discs in the noisy slices ``y``; the input is among the methods."""
    plain = {name: method(y) for name, method in methods.items()}
    found = []
    for size, its in by_size.items():
        for hu in CONTRASTS:
            with_discs = y + hu * its.image
            kept = {name: its.contrast(method(with_discs) - plain[name]) / hu for name, method in methods.items()}
            seen = {name: abs(hu) * kept[name] / its.deviation(plain[name]) for name in methods}
            found.append(Measured(dose, size, hu, kept, seen))
    return found


@dataclass
class Strength:
    """The blend (1 - s) input + s restored at one dose, for each s: contrast kept, visibility, PSNR in dB."""

    kept: list[float]
    visibility: list[float]
    psnr: list[float]


def strength(of: Scan, y: np.ndarray, its: Discs, method: Method) -> Strength:
    """Blends of every strength, PSNR in the middle of the body without discs."""
    with_discs = y + SHOWN_CONTRAST * its.image
    x, x_with = method(y), method(with_discs)
    out = Strength([], [], [])
    square = (slice(None), *of.square())
    for s in STRENGTHS:
        blend, blend_with = (1 - s) * y + s * x, (1 - s) * with_discs + s * x_with
        kept = its.contrast(blend_with - blend) / SHOWN_CONTRAST
        out.kept.append(kept)
        out.visibility.append(abs(SHOWN_CONTRAST) * kept / its.deviation(blend))
        out.psnr.append(psnr(blend[square], of.volume.array[square], of.window))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["shipped"], help="checkpoints, or shipped")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    parser.add_argument("--picture", type=Path, default=Path("runs/real_noise/lesions.png"), help="the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    of = flattest(scan("head CT"))
    at = places(of)
    by_size = {size: discs(of, at, size) for size in SIZES}
    models = {title: partial(restored, model, of) for title, model in loaded(options.model).items()}
    settings = {key: tuned(ROWS[key], "nlm") for key in DOSES.values() if key}
    found: list[Measured] = []
    strengths: dict[tuple[str, str], Strength] = {}
    levels = []
    for dose, key in DOSES.items():
        y = noisy(ROWS[key].noise, of).y if key else of.volume.array
        levels.append(f"{dose} {estimate_noise(y).sigma:.1f} HU")
        chosen = {k: v for k, v in settings[key].items() if k != "unbiased"} if key else {}
        methods: dict[str, Method] = {
            "input": lambda image: image,
            "NLM": partial(by_nlm, NlmSettings(**chosen), of),
            **models,
        }
        found += measure(dose, y, by_size, methods)
        if key:
            strengths |= {(name, dose): strength(of, y, by_size[SHOWN_SIZE], method) for name, method in models.items()}
    facts = f"Mean over {len(at)} discs of each kind. Noise level measured: {', '.join(levels)}"
    text = "\n\n".join([facts, *tables(found, strengths)])
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(found, strengths, options.picture)


def tables(found: list[Measured], strengths: dict[tuple[str, str], Strength]) -> list[str]:
    """Markdown: contrast kept and visibility of every disc, then the strengths."""
    names = [name for name in found[0].kept if name != "input"]
    heads = ["input", "diameter", "HU", *(f"kept: {name}" for name in names)]
    heads += [f"visibility: {name}" for name in ("input", *names)]
    rows = []
    for one in found:
        kept = [f"{100 * one.kept[name]:.0f} %" for name in names]
        rows.append([one.dose, str(one.size), f"{one.hu:.0f}", *kept, *(f"{v:.2f}" for v in one.visibility.values())])
    out = [table(heads, rows)]
    for (name, dose), its in strengths.items():
        blends = [
            [f"{s:.1f}", f"{100 * kept:.0f} %", f"{seen:.2f}", f"{decibels:.2f}"]
            for s, kept, seen, decibels in zip(STRENGTHS, its.kept, its.visibility, its.psnr, strict=True)
        ]
        disc = f"{SHOWN_SIZE} pixels, {SHOWN_CONTRAST:.0f} HU"
        out.append(f"Blend of {name}, {dose}, disc of {disc}\n\n" + table(["s", "kept", "visibility", "PSNR"], blends))
    return out


def draw(found: list[Measured], strengths: dict[tuple[str, str], Strength], path: Path) -> None:
    """Contrast kept by size and dose, visibility, and the trade of strength."""
    names = [name for name in found[0].kept if name != "input"]
    figure, axes = plt.subplots(2, len(DOSES), figsize=(11, 6.5), layout="constrained")
    for axis, dose in zip(axes[0], DOSES, strict=True):
        for colour, name in enumerate(names):
            for size, line in zip(SIZES, (":", "--", "-"), strict=True):
                points = [(-one.hu, 100 * one.kept[name]) for one in found if (one.dose, one.size) == (dose, size)]
                axis.plot(*zip(*points, strict=True), line, color=f"C{colour}", marker="o", label=f"{name}, {size} px")
        axis.set(title=dose, xlabel="contrast of the disc, -HU", ylim=(0, 110))
    axes[0, 0].set_ylabel("contrast kept, %")
    axes[0, 0].legend(fontsize=7)
    quantities = ("kept", "visibility", "psnr")
    titles = ("contrast kept, %", "visibility", "PSNR, dB")
    for axis, quantity, title in zip(axes[1], quantities, titles, strict=True):
        for (name, dose), its in strengths.items():
            values = np.array(getattr(its, quantity)) * (100 if quantity == "kept" else 1)
            line = "-" if "25" in dose else "--"
            axis.plot(STRENGTHS, values, line, color=f"C{names.index(name)}", label=f"{name}, {dose}")
        axis.set(title=title, xlabel="strength of the blend")
    axes[1, 0].set_title(f"contrast kept, %: {SHOWN_SIZE} px, {SHOWN_CONTRAST:.0f} HU")
    axes[1, 2].legend(fontsize=7)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
