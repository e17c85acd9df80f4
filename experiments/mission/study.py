"""Why eps on the linear schedule failed, and what mends it: the network's error by band, and its samples.

Run from the checkout after experiments/train.py mission (records/mission.md says how). RUN: a folder below runs/mission
    python -m experiments.mission.study bands RUN ...
    python -m experiments.mission.study samples WAYS RUN ... (WAYS: few, 200 or 1000 network calls)
    python -m experiments.mission.study table
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn

from cdm4mi.inference.slices import SliceRestorer
from cdm4mi.measure.metrics import mae, psnr, ssim
from cdm4mi.measure.ssim_foreign import ssim_across_slices
from cdm4mi.models.checkpoint import TrainedModel, load_model
from experiments.crops import CROP, DATA_RANGE, SLICES, TEST, VARIANCE, images, noisy, patches

RUNS = Path("runs/mission")
CACHE = RUNS / "samples.jsonl"
BANDS = {"DC": (0, 0), "low": (1, 8), "mid": (9, 32), "high": (33, 2 * CROP)}
"""Least and most sum of the two indices of a DCT coefficient."""
TIMES = (999, 500)
DRAWS = 4

DDPM_1000 = {"solver": "ddpm", "steps": 1000, "spacing": "linspace"}
DDIM_200 = {"solver": "ddim", "steps": 200, "eta": 0.0}
CALLS_200: dict[str, dict[str, Any]] = {
    "DDIM 200, eta 0": DDIM_200,
    "DDIM 200, eta 0, from y": DDIM_200 | {"start_from": "y"},
    "DDIM 200, eta 1": DDIM_200 | {"eta": 1.0},
    "DPM-Solver++ 2M 200": {"solver": "dpmpp_2m", "steps": 200, "spacing": "trailing"},
    "UniPC 200": {"solver": "unipc_2", "steps": 200, "spacing": "trailing"},
}
FEW_CALLS: dict[str, dict[str, Any]] = {
    "DDIM 50, eta 0": DDIM_200 | {"steps": 50},
    "DDIM 50, eta 1": DDIM_200 | {"steps": 50, "eta": 1.0},
    "DPM-Solver++ 2M 50": {"solver": "dpmpp_2m", "steps": 50, "spacing": "trailing"},
    "UniPC 50": {"solver": "unipc_2", "steps": 50, "spacing": "trailing"},
    "DDIM 50, eta 0, from y": DDIM_200 | {"steps": 50, "start_from": "y"},
    "DPM-Solver++ 2M 50, from y": {"solver": "dpmpp_2m", "steps": 50, "spacing": "trailing", "start_from": "y"},
}
WAYS = {"few": FEW_CALLS, "200": CALLS_200, "1000": {"DDPM 1000": DDPM_1000}}


def crops() -> list[tuple[str, np.ndarray]]:
    """(subject, clean crop) of the held-out subjects."""
    return images(TEST, SLICES, CROP)


def band_errors(model: TrainedModel, t: int) -> dict[str, float]:
    """Mean square error of eps_hat per orthonormal DCT coefficient by band, and the gain of its mean.

    1 is the error of a network that knows nothing; the gain is the slope of the mean of eps_hat on that of eps.
    """
    test = crops()
    x0 = torch.from_numpy(np.stack([image for _, image in test]).astype(np.float32))[:, None]
    y = torch.from_numpy(np.stack([noisy(image, k) for k, (_, image) in enumerate(test)]))[:, None]
    cond = model.process.condition(y, torch.full((len(y),), VARIANCE**0.5))
    times = torch.full((len(y),), t)
    true, found = [], []
    for draw in range(DRAWS):
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(draw))
        z = model.process.latent(model.process.path.q_sample(x0, times, eps), times, cond)
        with torch.no_grad():
            out = model.process.output(model.network, z, cond)
        true.append(eps), found.append(model.process.path.eps(z.x_t, model.process.parameterization.x0(out, z), times))
    eps, out = (torch.cat(x)[:, 0].double().numpy() for x in (true, found))
    error = (dctn(out - eps, axes=(1, 2), norm="ortho") ** 2).mean(0)
    order = np.add.outer(np.arange(CROP), np.arange(CROP))
    bands = {name: float(error[(order >= a) & (order <= b)].mean()) for name, (a, b) in BANDS.items()}
    m, n = eps.mean((1, 2)), out.mean((1, 2))
    return bands | {"gain of DC": float((m * n).sum() / (m * m).sum())}


def bands(runs: list[str]) -> None:
    """Markdown: a row for each run and time."""
    print("| network | t | DC | low | mid | high | gain of DC |\n|---|---|---|---|---|---|---|")
    for run in runs:
        model = load_model(RUNS / run / "checkpoints" / "last.ckpt")
        for t in TIMES:
            row = band_errors(model, t)
            print(f"| {run} | {t} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |", flush=True)


def samples(
    ways: str,
    runs: list[str],
    kind: str,
    count: int,
    combinations: list[tuple[bool, bool]],
    bf16: bool,
    only: str | None,
) -> None:
    """Figures of samples on [-1, 1], with and without the mean of y and clipping; kept in the cache, one line each.

    Of crops and of patches: PSNR, SSIM, MAE and error of the mean, each the mean over the images; then PSNR, SSIM and
    MAE of the protocol ``original``, over the images as one stack.
    """
    test = images(TEST, count, CROP) if kind == "crops" else patches(TEST, count, CROP)
    x0 = np.stack([image for _, image in test]).astype(np.float32)
    y = np.stack([noisy(image, k) for k, image in enumerate(x0)])
    done = {tuple(json.loads(line)["key"]) for line in CACHE.read_text().splitlines()} if CACHE.exists() else set()
    save(("noisy input", 0, "", False, True, kind, count), y, x0, 0.0, done)
    for run in runs:
        model = load_model(RUNS / run / "checkpoints" / "last.ckpt")
        for name, way in ((n, w) for n, w in WAYS[ways].items() if only in (None, n)):
            for keep_mean, clip in combinations:
                label = name + (", bf16" if bf16 else "")
                key = (run, model.about.step, label, keep_mean, clip, kind, count)
                if key in done:
                    continue
                update = way | {"keep_mean": keep_mean, "clip": clip, "estimate": "sample", "tile": CROP}
                began = time.process_time()
                restorer = SliceRestorer(model, model.config.sampling.model_copy(update=update))
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    out = restorer.restore(y, VARIANCE**0.5, seed=11)
                save(key, out, x0, time.process_time() - began, done)


def save(key: tuple, out: np.ndarray, x0: np.ndarray, seconds: float, done: set) -> None:
    """Put the figures of restored images into the cache, and the images beside it."""
    if key in done:
        return
    out = out.clip(-1, 1)
    each = [
        (psnr(a, b, DATA_RANGE), ssim(a, b, DATA_RANGE), mae(a, b), float((a - b).mean()))
        for a, b in zip(out, x0, strict=True)
    ]
    stack = (psnr(out, x0, DATA_RANGE), ssim_across_slices(out, x0, DATA_RANGE), mae(out, x0))
    figures = [*np.mean(each, axis=0).tolist(), *map(float, stack)]
    with CACHE.open("a") as f:
        f.write(json.dumps({"key": key, "figures": figures, "seconds": seconds}) + "\n")
    np.save(RUNS / ("-".join(map(str, key)).replace(" ", "_").replace(",", "") + ".npy"), out)
    print(*key, np.round(figures, 4), round(seconds), flush=True)


def table() -> None:
    """Markdown: PSNR, and error of the mean in brackets, of every way in the cache; a table for each run and set."""
    rows = [json.loads(line) for line in CACHE.read_text().splitlines()]
    for group in dict.fromkeys((r["key"][0], r["key"][1], *r["key"][5:]) for r in rows):
        run, step, kind, count = group
        print(f"\n{run}, {step} steps of training, {kind}, {count} of each of {len(TEST)} subjects\n")
        print("| | mean as it is | mean as it is, clip | mean of y | mean of y, clip |\n|---|---|---|---|---|")
        mine = {tuple(r["key"][2:5]): r["figures"] for r in rows if (r["key"][0], r["key"][1], *r["key"][5:]) == group}
        for name in dict.fromkeys(key[0] for key in mine):
            found = [mine.get((name, *c)) for c in ((False, False), (False, True), (True, False), (True, True))]
            print(f"| {name} | " + " | ".join(_cell(figures, kind) for figures in found) + " |")


def _cell(figures: list[float] | None, kind: str) -> str:
    if figures is None:
        return "-"
    if kind == "crops":
        return f"{figures[0]:.2f} ({figures[3]:+.3f})"
    return f"{figures[4]:.2f} / {figures[5]:.3f} / {figures[6]:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("bands", "samples", "table"))
    parser.add_argument("words", nargs="*", help="runs; for samples the group of ways first")
    parser.add_argument(
        "--kind", choices=("crops", "patches"), default="crops", help="middle of the brain, or anywhere"
    )
    parser.add_argument("--count", type=int, default=SLICES, help="images a subject")
    parser.add_argument("--mean", choices=("as-it-is", "of-y", "both"), default="both")
    parser.add_argument("--clip", choices=("no", "yes", "both"), default="both")
    parser.add_argument("--bf16", action="store_true", help="the network in bfloat16, twice as fast")
    parser.add_argument("--way", help="one way of the group")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.action == "bands":
        bands(options.words)
    elif options.action == "table":
        table()
    else:
        means = {"as-it-is": [False], "of-y": [True], "both": [False, True]}[options.mean]
        clips = {"no": [False], "yes": [True], "both": [False, True]}[options.clip]
        combinations = [(keep_mean, clip) for keep_mean in means for clip in clips]
        samples(
            options.words[0], options.words[1:], options.kind, options.count, combinations, options.bf16, options.way
        )


if __name__ == "__main__":
    main()
