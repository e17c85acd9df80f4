"""How often ``cdm4mi trust`` warns of good restorations, and how often of bad ones, on two sets of scans.

Run from the checkout (one thread; 200 cases take some 20 minutes, and what was interrupted goes on):
    python -m experiments.trust [--cases 200] [--sets held] [--model shipped] [--out runs/trust.jsonl] [--reasons]

A case is a part, 160 to 256 pixels a side, of a slice with white noise (Rician in MR) of 20 to 80 HU or as much of the
window, restored blind. "tuned": the scans that thresholds were looked at on, "held": others, that the shipped model was
not trained on. The kinds are those of ``KINDS``. A false alarm is a right restoration that is bad or refused by
--strict; a wrong one is flagged where it is not good or refused. Intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import binomtest

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.inference.record import DenoiseRecord
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.scan import WHITE, Scan
from cdm4mi.intensity import foreground, window_for
from cdm4mi.io import Volume
from cdm4mi.measure.noise_level import NoiseEstimate
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.models.noise_range import NoiseRange
from cdm4mi.trust import TrustReport, trust_report
from cdm4mi.trust.report import Comparison, range_of
from experiments.real_noise.scans import CT, T1, TUNE, scan

SETS = {"tuned": (*TUNE["MR"], *TUNE["CT"]), "held": (*T1, *CT)}
SIDES = 160, 256
LEVELS = 0.02, 0.08
"""Standard deviation of the noise on [-1, 1]: 20 to 80 HU."""
LESION, DIAMETER = 0.06, 10.0
"""Contrast on [-1, 1] (60 HU), and millimetres."""
RESCALED = 1.1
SMOOTHING = 1.0
"""Pixels, of the correlated noise."""
DAMAGE = 0.5
"""Standard deviation by which each weight of a damaged network is off, over the weight."""
RIGHT = "right noise"
KINDS = {
    RIGHT: "restored as it should be",
    "twice the noise": "twice the most noise of training",
    "another modality": "another modality: a PET scan, which the model has never seen",
    "rescaled": "output rescaled by 1.1",
    "correlated": "correlated noise, a model of white noise",
    "damaged weights": "weights off by a half, one by one at random",
    "erased": "lesion of 10 mm and 60 HU erased",
    "inserted": "the same inserted",
}


@dataclass
class Case:
    """A part of a slice, its noise and where a lesion is, all by a number."""

    scan: str
    clean: Volume
    sigma: float
    rng: np.random.Generator

    @classmethod
    def number(cls, n: int, names: tuple[str, ...]) -> Case:
        name = names[n % len(names)]
        of = scan(name)
        rng = np.random.default_rng(n)
        image = of.volume.array[n // len(names) % len(of.volume.array)]
        body = foreground(image, of.window.modality)
        side = int(rng.integers(SIDES[0], SIDES[1] + 1)) // 8 * 8
        middle = np.argwhere(body)[rng.integers(np.count_nonzero(body))]
        rows, columns = (
            slice(start := int(np.clip(at - side // 2, 0, max(0, length - side))), min(length, start + side))
            for at, length in zip(middle, image.shape, strict=True)
        )
        clean = Volume(image[None, rows, columns], of.volume.affine, of.window.modality)
        return cls(name, clean, float(np.exp(rng.uniform(*np.log(LEVELS)))), rng)

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

    def positron(self) -> Volume:
        """As a PET scan: the patient, blurred by 5 pixels, in Bq/ml, with noise as the root of the activity."""
        low = min(0.0, float(self.clean.array.min()))
        activity = (
            ndimage.gaussian_filter(self.clean.array - low, (0, 5, 5)) * 5e3 / max(1.0, self.clean.array.max() - low)
        )
        noise = ndimage.gaussian_filter(self.rng.normal(size=activity.shape), (0, 1, 1)) * np.sqrt(activity) * 20
        return Volume((activity + noise).clip(0).astype(np.float32), self.clean.affine, "PT")

    def _noise(self, smoothing: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(self.rng.normal(size=self.clean.shape), (0, smoothing, smoothing))
        return noise / noise.std()

    def lesion(self) -> np.ndarray:
        """A ball in the patient, in physical units."""
        body = ndimage.binary_fill_holes(foreground(self.clean.array[0], self.clean.modality))
        spacing = self.clean.spacing[1:]
        depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing)[1:-1, 1:-1]
        inside = np.argwhere(depth > min(2 * DIAMETER, 0.8 * depth.max()))
        middle = inside[self.rng.integers(len(inside))]
        offsets = np.indices(body.shape) - middle[:, None, None]
        distance = np.hypot(offsets[0] * spacing[0], offsets[1] * spacing[1])
        return ((distance <= DIAMETER / 2) * LESION / self.scale)[None].astype(np.float32)


def as_white(model: TrainedModel) -> TrainedModel:
    """The model, with a training range of white noise alone."""
    noise = noise_from_spec("gaussian", {"variance": "0.0001,0.25"})
    data = model.config.data.model_copy(update={"noise": noise})
    return replace(model, config=model.config.model_copy(update={"data": data}))


def damaged(model: TrainedModel, rng: np.random.Generator) -> TrainedModel:
    """The model with every weight off by ``DAMAGE`` of itself."""
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        for weights in network.parameters():
            weights *= 1 + DAMAGE * torch.randn(weights.shape, generator=generator)
    return replace(model, network=network)


def restored_as_white(restorer: Restorer, y: Volume, sigma: float) -> Volume:
    """Restored as if the noise, of standard deviation ``sigma`` on [-1, 1], were white."""
    window = window_for(y)
    images = window.normalised(y.array)
    inside = images.clip(-1 - 4 * sigma, 1 + 4 * sigma)
    restored = restorer.slices.moments(inside, sigma, spacing=y.spacing, texture=WHITE)[0]
    return y.with_array(window.physical(restored + images - inside))


def reports(case: Case, model: TrainedModel, restorer: Restorer) -> Iterator[tuple[str, TrustReport]]:
    """Of each kind, in the order of ``KINDS``."""

    def restored(y: Volume, by: Restorer = restorer) -> tuple[Volume, DenoiseRecord, NoiseEstimate]:
        scans: list[Scan] = []
        found = by.restore(y, on_scan=scans.append)
        assert scans[0].measured is not None
        return found.volume, found.record, scans[0].measured

    def report(y: Volume, x: Volume, record: DenoiseRecord, noise: NoiseEstimate) -> TrustReport:
        window = record.normalisation
        known = range_of(model, y, window, noise)  # as while a scan is restored: the noise is not measured again
        return Comparison(y, noise).report(x, window, known, record, record.input)

    y = case.noisy(case.sigma)
    x, record, noise = restored(y)
    lesion = case.lesion()
    trained = NoiseRange.of(model.config, window_for(case.clean)).sigma
    assert trained is not None
    yield RIGHT, report(y, x, record, noise)
    loud = case.noisy(2 * trained[1])
    yield "twice the noise", report(loud, *restored(loud))
    positron = case.positron()
    yield "another modality", report(positron, *restored(positron))
    yield "rescaled", report(y, x.with_array(RESCALED * x.array), record, noise)
    correlated = case.noisy(case.sigma, SMOOTHING)
    white = trust_report(correlated, restored_as_white(restorer, correlated, case.sigma), model=as_white(model))
    yield "correlated", white
    yield "damaged weights", report(y, *restored(y, Restorer(damaged(model, case.rng))))
    yield "erased", trust_report(y.with_array(y.array + lesion), x, model=model)
    yield "inserted", report(y, x.with_array(x.array + lesion), record, noise)


def run(of: str, cases: int, model: TrainedModel, out: Path) -> list[dict]:
    """Judge the cases that ``out`` does not hold for this model yet; all lines of the set."""
    key = {"set": of, "model": model.weight_hash}
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []
    lines = [line for line in lines if key.items() <= line.items() and line["case"] < cases]
    done = {line["case"] for line in lines if line["kind"] == list(KINDS)[-1]}
    restorer = Restorer(model)
    for n in range(cases):
        if n in done:
            continue
        case = Case.number(n, SETS[of])
        found = [
            key
            | {"case": n, "scan": case.scan, "kind": kind, "verdict": report.verdict, "refused": report.refused}
            | {"reasons": [f"{reason.colour}: {reason.text}" for reason in report.reasons]}
            for kind, report in reports(case, model, restorer)
        ]
        with out.open("a", encoding="utf-8") as opened:
            opened.writelines(json.dumps(line) + "\n" for line in found)
        lines += found
    return lines


def rate(count: int, total: int) -> str:
    """A share in percent, with its interval."""
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return f"{count / total:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="of each set and kind, in turn over the scans")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--model", default="shipped", help="a checkpoint, or shipped")
    parser.add_argument("--out", type=Path, default=Path("runs/trust.jsonl"), help="a line for each report")
    parser.add_argument(
        "--reasons", action="store_true", help="print the reasons of each report that is not as expected"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model = load_model(options.model)
    for of in options.sets:
        lines = run(of, options.cases, model, options.out)
        print(f"\n{of}: {', '.join(SETS[of])}\n")
        print(
            "| kind | good | caution | bad | refused by `--strict` | false alarms, or flagged |\n"
            "|---|---|---|---|---|---|"
        )
        for kind, title in KINDS.items():
            these = [line for line in lines if line["kind"] == kind]
            verdicts = [line["verdict"] for line in these]
            alarms = [line["refused"] or (kind != RIGHT and line["verdict"] != "good") for line in these]
            numbers = [*map(verdicts.count, ("good", "caution", "bad")), sum(line["refused"] for line in these)]
            print(f"| {title} | {' | '.join(map(str, numbers))} | {rate(sum(alarms), len(alarms))} |")
            for line, alarm in zip(these, alarms, strict=True):
                if options.reasons and (line["verdict"] != "good" if kind == RIGHT else not alarm):
                    print(f"  {line['case']} {line['scan']}: {'; '.join(line['reasons'])}")


if __name__ == "__main__":
    main()
