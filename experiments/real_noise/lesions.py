"""The lesion test of a model on a head CT at low dose, beside tuned classical methods, and at less strength.

Run from the checkout (one thread; BM3D, where its package is, takes 4 s an image and most of the time):
    python -m experiments.real_noise.lesions [--model shipped CHECKPOINT ...] [--out FILE] [--picture FILE.png]

The scan is a slice of a head CT that no model was trained on, as it is and with the noise of a lower dose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from cdm4mi import io
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.degradation import Degradation
from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.inference.strength import weakened
from cdm4mi.io import Volume
from cdm4mi.lesions.measure import measure
from cdm4mi.lesions.methods import INPUT, Method, classical, trained, untouched
from cdm4mi.lesions.picture import draw_lesion_test
from cdm4mi.lesions.printed import tables_of
from cdm4mi.lesions.record import Cell, LesionTest
from cdm4mi.lesions.run import CONTRASTS_HU, SIZES
from cdm4mi.lesions.tissue import Tissue, find_tissue
from cdm4mi.models.checkpoint import TrainedModel
from experiments.real_noise.rows import METHODS, ROWS, tuned
from experiments.real_noise.study import loaded, table
from experiments.shared import SCANS

DOSES = {"as it is": None, "25 % of the dose": "ct-dose-25", "10 % of the dose": "ct-dose-10"}
"""Title -> row of the study, on whose noise the classical methods are tuned."""
SITES, REPEATS = 12, 6
WEAKER = "25 % of the dose"
STRENGTHS = (0.25, 0.4, 0.6, 0.8, 1.0)
BLENDED = 0.4
FEW = SIZES, (-40.0,)
"""Sizes and contrasts for the study of strength."""


def baseline(method: str, key: str | None) -> Method:
    """A classical method, tuned for a dose on other scans; as it comes for the scan as it is."""
    if key is None:
        return classical(method)
    settings = {name: value for name, value in tuned(ROWS[key], method).items() if name != "unbiased"}
    return classical(method, type(BASELINES[method].default)(**settings))


def added(key: str) -> Degradation:
    """The noise of a row of the study."""
    return noise_from_spec("low_dose_ct", {"dose": ROWS[key].noise[1]["dose"]})


def cells_of(part: Tissue, models: dict[str, TrainedModel], title: str, key: str | None) -> list[Cell]:
    """Input, NLM, BM3D where it is installed, and the models at one dose."""
    methods = {INPUT: untouched(), "NLM": baseline("nlm", key)}
    if BASELINES["bm3d"].installed:
        methods[METHODS["bm3d"]] = baseline("bm3d", key)
    methods |= {name: trained(model) for name, model in models.items()}
    return measure([part], methods, added(key) if key else None, title, SIZES, CONTRASTS_HU, repeats=REPEATS)


def weaker(part: Tissue, model: TrainedModel, title: str, key: str) -> list[Cell]:
    """The model at one dose, at each strength s of ``STRENGTHS``, and a blend with the noisy image."""
    restorer, last = trained(model), {}

    def restore(images: np.ndarray, sigma: float, scan: Volume, s: float, blend: bool) -> np.ndarray:
        if s == STRENGTHS[0]:  # the others follow with the same images
            last["x"] = restorer.restore(images, sigma, scan)
        x, y = last["x"], images[:, images.shape[1] // 2]
        return y + s * (x - y) if blend else weakened(x, y, s)

    def method(s: float, blend: bool = False) -> Method:
        return Method(lambda images, sigma, scan: restore(images, sigma, scan, s, blend))

    methods = {INPUT: untouched(), **{f"s = {s:g}": method(s) for s in STRENGTHS}}
    methods[f"blend, {BLENDED:g}"] = method(BLENDED, blend=True)
    return measure([part], methods, added(key), title, *FEW, repeats=REPEATS)


def as_test(cells: list[Cell], model: TrainedModel, title: str, part: Tissue) -> LesionTest:
    """The record that ``cdm4mi lesion-test`` would write."""
    return LesionTest(
        model=model.name,
        weight_hash=model.weight_hash,
        model_title=title,
        settings=model.config.sampling.model_dump(mode="json"),
        modality="CT",
        unit="HU",
        in_percent=False,
        shape="disc",
        sites=len(part.sites),
        repeats=REPEATS,
        seed=0,
        inputs=[io.input_record(part.scan)],
        cells=cells,
    )


def printed(test: LesionTest) -> list[str]:
    """The tables in Markdown."""
    return [f"{part.title}\n\n{table(part.heads, part.rows)}" for part in tables_of(test)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["shipped"], help="checkpoints, or shipped")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    parser.add_argument("--picture", type=Path, default=Path("runs/real_noise/lesions.png"), help="the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = loaded(options.model)
    name, model = next(iter(models.items()))
    scan = io.read(SCANS / "dicom/ge_head_ct_uneven")
    part = find_tissue(scan, SITES, max(SIZES))
    cells: list[Cell] = []
    for title, key in DOSES.items():
        cells += cells_of(part, models, title, key)
    weakest = weaker(part, model, f"{name} with less strength, {WEAKER}", DOSES[WEAKER])
    test = as_test(cells, model, name, part)
    facts = f"{len(part.sites)} discs of each kind in slice {part.number}, {REPEATS} draws of noise. "
    facts += f"{model.name}, weights {model.weight_hash[:12]}"
    text = "\n\n".join([facts, *printed(test), *printed(as_test(weakest, model, name, part))])
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    draw_lesion_test(test, options.picture)


if __name__ == "__main__":
    main()
