"""How often ``cdm4mi trust`` warns of good restorations, and how often of bad ones, on held-out scans.

Run from the checkout (one thread):
    python -m experiments.trust [--cases N] [--model shipped]

A case is one slice of a scan that the shipped model was not trained on (T1 of four subjects, a head CT), with white
noise (Rician in MR), restored blind. "erased" and "inserted" change 60 HU over a ball of 10 mm (in MR the same on
[-1, 1]) in the input or in the output. "white model" is the model told that correlated noise is white, with a training
range of white noise alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.inference.restorer import WHITE, Restorer
from cdm4mi.intensity import foreground, window_for
from cdm4mi.io import Volume
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.models.noise_range import NoiseRange
from cdm4mi.trust import TrustReport, trust_report
from experiments.real_noise.scans import T1, scan

NAMES = (*T1, "head CT")
LEVELS = 0.02, 0.08
"""Standard deviation of the noise on [-1, 1]: 20 to 80 HU."""
LESION, DIAMETER = 0.06, 10.0
"""Contrast on [-1, 1] (60 HU), and millimetres."""
RESCALED = 1.1
SMOOTHING = 1.0
"""Pixels, of the correlated noise."""
KINDS = (
    "right noise",
    "twice the noise of training",
    "rescaled by 1.1",
    "correlated, white model",
    "erased",
    "inserted",
)


@dataclass
class Case:
    """One slice, its noise and where a lesion is, all by a number."""

    clean: Volume
    sigma: float
    rng: np.random.Generator

    @classmethod
    def number(cls, n: int) -> Case:
        of = scan(NAMES[n % len(NAMES)])
        k = n // len(NAMES) % len(of.volume.array)
        rng = np.random.default_rng(n)
        clean = Volume(of.volume.array[k : k + 1], of.volume.affine, of.window.modality)
        return cls(clean, float(np.exp(rng.uniform(*np.log(LEVELS)))), rng)

    @property
    def scale(self) -> float:
        """On [-1, 1] for one physical unit."""
        return window_for(self.clean).scale

    def noisy(self, sigma: float, smoothing: float = 0.0) -> Volume:
        """With noise of standard deviation ``sigma`` on [-1, 1]."""
        first, second = (self._noise(smoothing) * sigma / self.scale for _ in range(2))
        clean = self.clean.array
        y = np.hypot(clean + first, second) if self.clean.modality == "MR" else clean + first
        return self.clean.with_array(y.astype(np.float32))

    def _noise(self, smoothing: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(self.rng.normal(size=self.clean.shape), (0, smoothing, smoothing))
        return noise / noise.std()

    def lesion(self) -> np.ndarray:
        """A ball in the patient, in physical units."""
        body = ndimage.binary_fill_holes(foreground(self.clean.array[0], self.clean.modality))
        spacing = self.clean.spacing[1:]
        inside = np.argwhere(ndimage.distance_transform_edt(body, sampling=spacing) > 2 * DIAMETER)
        middle = inside[self.rng.integers(len(inside))]
        offsets = np.indices(body.shape) - middle[:, None, None]
        distance = np.hypot(offsets[0] * spacing[0], offsets[1] * spacing[1])
        return ((distance <= DIAMETER / 2) * LESION / self.scale)[None].astype(np.float32)


def as_white(model: TrainedModel) -> TrainedModel:
    """The model, with a training range of white noise alone."""
    noise = noise_from_spec("gaussian", {"variance": "0.0001,0.25"})
    data = model.config.data.model_copy(update={"noise": noise})
    return replace(model, config=model.config.model_copy(update={"data": data}))


def told_white(restorer: Restorer, y: Volume, sigma: float) -> Volume:
    """Restored as if the noise, of standard deviation ``sigma`` on [-1, 1], were white."""
    window = window_for(y)
    images = window.normalised(y.array)
    inside = images.clip(-1 - 4 * sigma, 1 + 4 * sigma)
    restored = restorer.restore_moments(inside, sigma, spacing=y.spacing, texture=WHITE)[0]
    return y.with_array(window.physical(restored + images - inside))


def reports(case: Case, model: TrainedModel, restorer: Restorer) -> dict[str, TrustReport]:
    """Of each kind."""

    def restored(y: Volume) -> tuple[Volume, DenoiseRecord]:
        found = restorer.restore(y)
        return found.volume, found.record

    y = case.noisy(case.sigma)
    x, record = restored(y)
    lesion = case.lesion()
    most = NoiseRange.of(model.config, window_for(case.clean)).sigma[1]
    loud = case.noisy(2 * most)
    from_loud, of_loud = restored(loud)
    correlated = case.noisy(case.sigma, SMOOTHING)
    found = (
        trust_report(y, x, model=model, record=record),
        trust_report(loud, from_loud, model=model, record=of_loud),
        trust_report(y, x.with_array(RESCALED * x.array), model=model, record=record),
        trust_report(correlated, told_white(restorer, correlated, case.sigma), model=as_white(model)),
        trust_report(y.with_array(y.array + lesion), x, model=model),
        trust_report(y, x.with_array(x.array + lesion), model=model, record=record),
    )
    return dict(zip(KINDS, found, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="slices with noise, in turn over the scans")
    parser.add_argument("--model", default="shipped", help="a checkpoint, or shipped")
    parser.add_argument("--reasons", action="store_true", help="print the reasons of each report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(None if options.model == "shipped" else options.model)
    restorer = Restorer(model)
    counts: dict[tuple[str, str], Counter[str]] = {}
    for n in range(options.cases):
        case = Case.number(n)
        for kind, report in reports(case, model, restorer).items():
            counted = counts.setdefault((kind, case.clean.modality), Counter())
            counted.update([report.verdict, *(["refused"] if report.refused else [])])
            if options.reasons:
                texts = "; ".join(f"{r.colour}: {r.text}" for r in report.reasons)
                print(f"{n} {NAMES[n % len(NAMES)]}, {kind}: {texts}", flush=True)
    print("| kind | scans | cases | good | caution | bad | refused by --strict |\n|---|---|---|---|---|---|---|")
    for (kind, modality), found in sorted(counts.items(), key=lambda item: KINDS.index(item[0][0])):
        total = found["good"] + found["caution"] + found["bad"]
        numbers = (found[column] for column in ("good", "caution", "bad", "refused"))
        print(f"| {kind} | {modality} | {total} | {' | '.join(map(str, numbers))} |")


if __name__ == "__main__":
    main()
