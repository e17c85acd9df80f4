"""Quality against network calls of the compared models on held-out subjects: measures, caches, and prints the table.

Run from the checkout after experiments/train.py paths (records/paths.md says how):
    python -m experiments.paths.study measure [METHOD ...]
    python -m experiments.paths.study table
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdm4mi.evaluation.baselines import BASELINES, nlm
from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.measure.metrics import mae, psnr, ssim
from cdm4mi.measure.spectrum import spectrum_error
from cdm4mi.models.checkpoint import load_model
from experiments.crops import CROP, DATA_RANGE, SLICES, TEST, TUNE, VARIANCE, images, noisy
from experiments.paths.methods import METHODS

RUNS = Path("runs/paths")
CACHE = RUNS / "study.jsonl"

DDIM: dict[str, Any] = {"solver": "ddim", "eta": 0.0, "spacing": "trailing"}
STOCHASTIC: dict[str, Any] = {"solver": "ddim", "eta": 1.0, "spacing": "linspace"}
TWO_M: dict[str, Any] = {"solver": "dpmpp_2m", "spacing": "logsnr"}
TWO_M_SDE: dict[str, Any] = {"solver": "dpmpp_2m_sde", "spacing": "logsnr"}
UNIPC: dict[str, Any] = {"solver": "unipc_2", "spacing": "logsnr"}
FEW = (2, 4, 10, 20, 50)


def settings(method: str) -> list[dict[str, Any]]:
    """How each model is sampled: estimate, solver, steps."""
    mean = [{"estimate": "mean"}]
    if method in ("regression", "regression-half"):
        return mean
    if method.startswith("ddpm"):
        ways = [DDIM | {"steps": s} for s in (1, *FEW, 200)] + [TWO_M | {"steps": s} for s in (10, 20)]
        ways += [{"solver": "ddpm", "spacing": "linspace", "steps": 1000}]
        ways = [w | {"clip": True} for w in ways]
    else:
        ways = [STOCHASTIC | {"steps": s} for s in (*FEW, 200, 1000)]
        if method == "bridge":
            ways += [DDIM | {"steps": s} for s in FEW] + [TWO_M | {"steps": s} for s in (4, 10, 20)]
        if method in ("default", "precond-75", "corrdiff"):
            ways += [w | {"steps": s} for w in (TWO_M, TWO_M_SDE, UNIPC) for s in (4, 10, 20)]
    if method == "ddpm-eps":
        mean = []  # its first call says next to nothing of x0
    one = [w | {"estimate": "sample"} for w in ways]
    eight = [w | {"estimate": "mean-of-k", "samples": 8} for w in ways if w["steps"] in (4, 10)]
    return mean + one + eight


def label(way: dict[str, Any]) -> tuple[str, str, int]:
    """(estimate, solver, network calls)."""
    if way["estimate"] == "mean":
        return "one-call mean", "", 1
    name = way["solver"] + (f", eta {way['eta']:g}" if "eta" in way else "")
    estimate = "sample" if way["estimate"] == "sample" else f"mean of {way['samples']}"
    return estimate, name, way["steps"] * way.get("samples", 1)


def cached() -> list[dict[str, Any]]:
    """Every measurement so far."""
    return [json.loads(line) for line in CACHE.read_text().splitlines()] if CACHE.exists() else []


def save(method: str, way: tuple[str, str, int], out: np.ndarray, test: list, seconds: float) -> None:
    """One line for a method: for each subject the means over its images (the mean of the power, for the spectrum)."""
    figures = {}
    for subject in dict.fromkeys(name for name, _ in test):
        x0 = np.stack([image for name, image in test if name == subject])
        x = np.stack([image.clip(-1, 1) for image, (name, _) in zip(out, test, strict=True) if name == subject])
        each = [(psnr(a, b, DATA_RANGE), ssim(a, b, DATA_RANGE), mae(a, b)) for a, b in zip(x, x0, strict=True)]
        figures[subject] = [*np.mean(each, axis=0).tolist(), spectrum_error(x, x0)]
    line = {"method": method, "estimate": way[0], "solver": way[1], "calls": way[2], "seconds": seconds}
    with CACHE.open("a") as f:
        f.write(json.dumps(line | {"figures": figures}) + "\n")
    print(method, *way, np.mean(list(figures.values()), axis=0).round(4), round(seconds, 2), flush=True)


def measure(methods: list[str]) -> None:
    """Run what is not in the cache yet."""
    torch.set_num_threads(1)
    done = {(r["method"], r["estimate"], r["solver"], r["calls"]) for r in cached()}
    test = images(TEST, SLICES, CROP)
    y = np.stack([noisy(x0, k) for k, (_, x0) in enumerate(test)])
    if ("noisy input", "", "", 0) not in done:
        save("noisy input", ("", "", 0), y, test, 0.0)
        tuning = [(noisy(x0, 1000 + k), x0, VARIANCE**0.5) for k, (_, x0) in enumerate(images(TUNE, 4, CROP))]
        best = BASELINES["nlm"].tuned(tuning)
        began = time.process_time()
        out = np.stack([nlm(image, VARIANCE**0.5, best) for image in y])
        save("non-local means, tuned", ("", "", 0), out, test, (time.process_time() - began) / len(y))
    for method in methods:
        model = None
        for way in settings(method):
            if (method, *label(way)) in done:
                continue
            model = model or load_model(RUNS / method / "checkpoints" / "last.ckpt")
            sampling = model.config.sampling.model_copy(update={"clip": False, "tile": CROP} | way)
            restorer = SliceRestorer(model, sampling)
            began = time.process_time()
            out = restorer.restore(y, VARIANCE**0.5, seed=11)
            save(method, label(way), out, test, (time.process_time() - began) / len(y))


def table() -> None:
    """Markdown: a row for each model and way, means over the subjects."""
    rows = cached()
    order = ["noisy input", "non-local means, tuned", *METHODS]
    print("| model | estimate | solver | calls | PSNR (dB) | SSIM | MAE | spectrum error (dB) | CPU s an image |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda r: (order.index(r["method"]), r["estimate"], r["solver"], r["calls"])):
        p, s, m, e = np.mean(list(row["figures"].values()), axis=0)
        names = [row["method"], row["estimate"], row["solver"], str(row["calls"] or "")]
        print(f"| {' | '.join(names)} | {p:.2f} | {s:.3f} | {m:.4f} | {e:.2f} | {row['seconds']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "table"))
    parser.add_argument("methods", nargs="*")
    options = parser.parse_args()
    if options.action == "table":
        table()
    else:
        measure(options.methods or list(METHODS))


if __name__ == "__main__":
    main()
