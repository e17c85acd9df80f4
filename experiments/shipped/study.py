"""The shipped model beside its baselines on held-out subjects: measures, caches, and prints the record.

Run from the checkout after the three trainings (records/shipped_model.md says how):
    python experiments/shipped/study.py measure --part slices     whole slices, the methods of one call
    python experiments/shipped/study.py measure --part crops      64 x 64 crops, every method
    python experiments/shipped/study.py table                     print the record in Markdown
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from cdm4mi import io
from cdm4mi.data.normalise import foreground, normalisation_for
from cdm4mi.evaluation.baselines import BASELINES, NlmSettings, nlm
from cdm4mi.inference.restorer import Restorer
from cdm4mi.measure.metrics import mae, per_patient_mean, psnr, ssim
from cdm4mi.models.checkpoint import load_model

DATA = Path("../shared/data")
TEST = {
    "sub-17": "mr/ds002748_sub-17_T1w.nii.gz",
    "sub-18": "mr/ds002748_sub-18_T1w.nii.gz",
    "sub-19": "mr/ds002748_sub-19_T1w.nii.gz",
    "sub-20": "mr/ds002748_sub-20_T1w.nii.gz",
    "ge_head_ct": "dicom/ge_head_ct_uneven",
}
TUNE = {
    "MR": ["mr/ds002748_sub-15_T1w.nii.gz", "mr/ds002748_sub-16_T1w.nii.gz", "mr/pyradiomics_brain1.nii.gz"],
    "CT": ["ct/lidc_0314_chest.nii.gz", "ct/acrin_flt_001_body.nii.gz"],
}
"""What non-local means is tuned on, for each modality and level: validation subjects, and for CT the training scans."""
VARIANCES = (0.01, 0.05, 0.1, 0.2)
SLICES = 4
CROP = 64
TUNING_CROP = 128
RUNS = Path("runs")
CACHE = RUNS / "study.jsonl"
TILE = 128
DATA_RANGE = 2.0

Method = Callable[[np.ndarray, float, str], np.ndarray]


def clean_slices(path: str, count: int) -> tuple[str, list[np.ndarray]]:
    """(modality, slices on [-1, 1]) spread evenly over the part of a scan whose slices are at least 15 % body."""
    volume = io.read(DATA / path)
    norm = normalisation_for(volume)
    body = foreground(volume.array, norm.modality).mean((1, 2)) > 0.15
    where = np.flatnonzero(body)
    chosen = where[np.linspace(0, len(where) - 1, count + 2)[1:-1].round().astype(int)]
    return norm.modality, [norm.apply(volume.array[k]).clip(-1, 1) for k in chosen]


def crop(image: np.ndarray, modality: str, side: int) -> np.ndarray:
    """The side x side pixels around the middle of the body."""
    rows, columns = np.nonzero(foreground(image + 1, "MR") if modality != "CT" else image > -0.5)
    row, column = (
        int(np.clip(np.mean(c) - side // 2, 0, n - side)) for c, n in zip((rows, columns), image.shape, strict=True)
    )
    return image[row : row + side, column : column + side]


def tuned_nlm() -> dict[str, NlmSettings]:
    """Settings of non-local means by "MODALITY VARIANCE", searched on the scans of TUNE; cached."""
    cache = RUNS / "study-nlm.json"
    if cache.exists():
        return {k: NlmSettings(**v) for k, v in json.loads(cache.read_text()).items()}
    out = {}
    for modality, paths in TUNE.items():
        clean = [crop(s, modality, TUNING_CROP) for p in paths for s in clean_slices(p, 2)[1]]
        for variance in VARIANCES:
            rng = np.random.default_rng(7)
            sigma = variance**0.5
            pairs = [((x + sigma * rng.standard_normal(x.shape)).astype(np.float32), x, sigma) for x in clean]
            out[f"{modality} {variance}"] = BASELINES["nlm"].tuned(pairs)
            print(modality, variance, out[f"{modality} {variance}"], flush=True)
    cache.write_text(json.dumps({k: asdict(v) for k, v in out.items()}))
    return out


def diffusion(run: str, **sampling: object) -> Method:
    """A trained model's restoration with the given sampling settings."""
    model = load_model(RUNS / run / "checkpoints" / "last.ckpt")
    restorer = Restorer(model, model.config.sampling.model_copy(update={"tile": TILE, **sampling}))
    return lambda y, sigma, modality: restorer.restore_slices(y[None], sigma)[0]


def methods(part: str) -> dict[str, Callable[[], Method]]:
    """Name -> maker of the method, in the order of the table."""
    settings = tuned_nlm()

    def classical(y: np.ndarray, sigma: float, modality: str) -> np.ndarray:
        return nlm(y, sigma, settings[f"{modality} {round(sigma**2, 4)}"])

    eps = {"estimate": "sample", "clip": True}
    out: dict[str, Callable[[], Method]] = {
        "noisy input": lambda: lambda y, sigma, modality: y,
        "non-local means, tuned": lambda: classical,
        "regression U-Net": lambda: diffusion("regression"),
        "precond at the same budget, one-call mean": lambda: diffusion("precond", estimate="mean"),
        "shipped (2800 steps more), one-call mean": lambda: diffusion("shipped", estimate="mean"),
    }
    if part == "crops":
        ddpm = {"solver": "ddpm", "spacing": "linspace"}
        ten = {"solver": "ddim", "eta": 1.0, "spacing": "linspace", "steps": 10, "clip": False}
        out |= {
            "shipped, one 10-call sample": lambda: diffusion("shipped", estimate="sample", **ten),
            "shipped, mean of 8 samples": lambda: diffusion("shipped", estimate="mean-of-k", samples=8, **ten),
            "eps linear, DDIM 50": lambda: diffusion("eps", solver="ddim", steps=50, spacing="trailing", **eps),
            "eps linear, DDIM 200": lambda: diffusion("eps", solver="ddim", steps=200, spacing="trailing", **eps),
            "eps linear, DDPM 1000": lambda: diffusion("eps", steps=1000, **ddpm, **eps),
        }
    return out


def cached() -> list[dict]:
    """Every measurement so far."""
    return [json.loads(line) for line in CACHE.read_text().splitlines()] if CACHE.exists() else []


def cases(part: str) -> Iterator[tuple[str, str, int, float, np.ndarray, np.ndarray]]:
    """(subject, modality, slice, variance, noisy, clean): the noise is decided by subject, slice and variance."""
    for number, (subject, path) in enumerate(TEST.items()):
        modality, slices = clean_slices(path, SLICES if part == "slices" else 1)
        for k, image in enumerate(slices):
            x0 = image if part == "slices" else crop(image, modality, CROP)
            for variance in VARIANCES:
                rng = np.random.default_rng([number, k, round(variance * 1e4)])
                y = (x0 + variance**0.5 * rng.standard_normal(x0.shape)).astype(np.float32)
                yield subject, modality, k, variance, y, x0


def measure(part: str, only: list[str] | None) -> None:
    """Run what is not in the cache yet; one line a measurement."""
    torch.set_num_threads(1)
    done = {(r["part"], r["method"], r["subject"], r["slice"], r["variance"]) for r in cached()}
    for name, make in methods(part).items():
        if only and not any(o in name for o in only):
            continue
        method: Method | None = None
        for subject, modality, k, variance, y, x0 in cases(part):
            if (part, name, subject, k, variance) in done:
                continue
            method = method or make()
            began = time.process_time()
            out = method(y, variance**0.5, modality).clip(-1, 1)
            row = {
                "part": part,
                "method": name,
                "subject": subject,
                "modality": modality,
                "slice": k,
                "variance": variance,
                "psnr": psnr(out, x0, DATA_RANGE),
                "ssim": ssim(out, x0, DATA_RANGE),
                "mae": mae(out, x0),
                "seconds": time.process_time() - began,
            }
            with CACHE.open("a") as f:
                f.write(json.dumps(row) + "\n")
        print(part, name, "done", flush=True)


def table(part: str, group: str, subjects: list[str]) -> None:
    """One Markdown table: methods by levels, means over the slices of a subject, then over subjects."""
    rows = [r for r in cached() if r["part"] == part and r["subject"] in subjects]
    present = {r["method"] for r in rows}
    names = [name for name in methods(part) if name in present]
    print(f"\n### {group}\n")
    print("| method | " + " | ".join(f"variance {v}" for v in VARIANCES) + " | CPU seconds |")
    print("|---" * (len(VARIANCES) + 2) + "|")
    for name in names:
        cells = []
        for v in VARIANCES:
            chosen = [
                (r["subject"], {m: r[m] for m in ("psnr", "ssim", "mae")})
                for r in rows
                if r["method"] == name and r["variance"] == v
            ]
            mean = per_patient_mean(chosen) if chosen else None
            cells.append(f"{mean['psnr']:.2f} / {mean['ssim']:.3f} / {mean['mae']:.4f}" if mean else "")
        seconds = np.mean([r["seconds"] for r in rows if r["method"] == name])
        print(f"| {name} | " + " | ".join(cells) + f" | {seconds:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "table"))
    parser.add_argument("--part", choices=("slices", "crops"), default="slices")
    parser.add_argument("--only", nargs="*", help="methods whose name holds one of these")
    options = parser.parse_args()
    if options.action == "measure":
        measure(options.part, options.only)
        return
    mr = [s for s, p in TEST.items() if p.startswith("mr/ds")]
    groups = {
        "T1 brain, 4 held-out subjects of the protocol trained on": mr,
        "Head CT, 1 held-out patient; no head CT was trained on": ["ge_head_ct"],
        "All 5 held-out subjects": list(TEST),
    }
    for part, title in (("slices", "Whole slices"), ("crops", "Crops of 64 x 64, every method")):
        print(f"\n## {title}\n\nPSNR (dB, range 2) / SSIM (Gaussian 11 x 11) / MAE, images on [-1, 1].")
        for group, subjects in groups.items():
            table(part, group, subjects)


if __name__ == "__main__":
    main()
