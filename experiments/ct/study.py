"""The CT study: each of three patients held out in turn, low dose at 25, 10 and 5 %; runs the folds, prints the record.

Run from the checkout, with the scans where shared.py says and the extra "baselines":
    python -m experiments.ct.study cost           processor seconds of a training step of each network
    python -m experiments.ct.study run            every fold by cdm4mi benchmark, with its report; goes on where it was
    python -m experiments.ct.study run --only 1   the second fold alone
    python -m experiments.ct.study table          the tables over the three patients, in Markdown
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from cdm4mi.config.load import load_config
from cdm4mi.config.yaml_text import plain, read_file
from cdm4mi.evaluation.aggregate import Key, study_means
from cdm4mi.evaluation.benchmark.record import Record
from cdm4mi.evaluation.metrics import Scores, shown
from cdm4mi.evaluation.report.tables import stamp
from cdm4mi.models import build_network
from cdm4mi.networks import NetworkCondition
from experiments.shared import moved

HERE = Path(__file__).parent
PATIENTS = ["acrin_flt_001_body", "lidc_0314_chest", "rider_pilot_chest"]
SSIM = {"ssim_gaussian": "SSIM (Gaussian 11 x 11)", "ssim_uniform": "SSIM (uniform 7 x 7)"}
RIVALS = ("U-Net regression", "DnCNN", "RED-CNN", "BM3D")


def fold(test: str) -> dict[str, Any]:
    """The study of one held-out patient: networks train on the other two, the classical methods are tuned on them."""
    study = plain(read_file(HERE / "study.yaml"), "study.yaml")
    study["name"] += f", fold {PATIENTS.index(test) + 1}"
    study["data"] |= {"test_patients": [test], "val_patients": [name for name in PATIENTS if name != test]}
    study["data"]["paths"] = moved(study["data"]["paths"])
    training = json.dumps(moved(load_config(HERE / "base.yaml").data.paths))
    for method in study["methods"]:
        if method["type"] == "model":
            method["overrides"] = [*method["overrides"], f"paths={training}", f"exclude_patients=[{test}]"]
    return study


def run(out: Path, only: int | None) -> None:
    """Every fold in a folder of its own."""
    out.mkdir(parents=True, exist_ok=True)
    for place, test in enumerate(PATIENTS):
        if only in (None, place):
            config = out / f"fold-{place + 1}.yaml"
            config.write_text(json.dumps(fold(test), indent=1))
            subprocess.run(["cdm4mi", "benchmark", str(config), "--out", str(out / f"fold-{place + 1}")], check=True)


def cost() -> None:
    """What a step of each network takes on one core, on random patches; noise and reading come on top."""
    torch.set_num_threads(1)
    print("| network | parameters | patches a step | side | s a step | steps | s |\n|---|---|---|---|---|---|---|")
    told = set()
    for method in fold(PATIENTS[0])["methods"]:
        if method["type"] != "model" or tuple(method["overrides"]) in told:
            continue
        told.add(tuple(method["overrides"]))
        config = load_config(method["config"], method["overrides"])
        network = build_network(config.model)
        optimizer = torch.optim.AdamW(network.parameters())
        side, count = config.model.image_size, config.training.batch_size
        x, y = torch.randn(count, 1, side, side), torch.randn(count, 2, side, side)
        seconds = []
        for _ in range(8):
            began = time.process_time()
            network(x, torch.full((count,), config.model.timesteps - 1), NetworkCondition(y)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.process_time() - began)
        one, steps = sorted(seconds)[len(seconds) // 2], config.training.max_tsteps
        size = sum(p.numel() for p in network.parameters())
        print(f"| {config.name} | {size:,} | {count} | {side} | {one:.2f} | {steps} | {one * steps:.0f} |", flush=True)


def table(out: Path) -> None:
    """Means over the patients of all folds, then every patient."""
    folds = [Record(out / f"fold-{place + 1}") for place in range(len(PATIENTS))]
    first = folds[0]
    slices = sum(len(scan.slices) for record in folds for scan in record.study.scans)
    print(f"{len(folds)} patients, each held out in turn; {slices} slices. Splits: ", end="")
    print(", ".join(record.study.split for record in folds) + ".")
    for protocol in first.study.protocols:
        label = protocol.label
        for region in protocol.regions:
            print(f"\n### {protocol.name}, {'whole image' if region == 'image' else region}\n")
            metrics = [*protocol.main_metrics, "spectrum"]
            print(
                f"{stamp(first, protocol).split(',')[0]}. PSNR (dB) [95 % bootstrap interval over patients] / "
                f"{SSIM[metrics[1]]} / MAE (HU) / spectrum distance (dB).\n"
            )
            means = [study_means(patients(folds, number_, label)) for number_ in range(len(first.levels))]
            head = ["method", *(level.short for level in first.levels), "calls", "s a slice"]
            print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
            for method in first.methods:
                cells = [cell(by[method, region], metrics) for by in means]
                print(f"| {method} | {' | '.join(cells)} | {calls(folds, method)} | {seconds(folds, method):.2f} |")
            differences(first, means, region)
    each(folds)


def patients(folds: list[Record], level: int, label: str) -> dict[Key, dict[str, Scores]]:
    """Scores by (method, region), then by patient, of all folds."""
    found: dict[Key, dict[str, Scores]] = {}
    for record in folds:
        for of in record.scores[level][label].patients:
            found.setdefault((of.method, of.region), {})[of.patient] = of.scores
    return found


def cell(by_metric: dict[str, Any], metrics: list[str]) -> str:
    """One method at one level; PSNR comes first."""
    psnr = by_metric["psnr"]
    texts = [shown(by_metric[metric].value, metric) for metric in metrics]
    texts[0] += f" [{psnr.low:.2f}, {psnr.high:.2f}]"
    return " / ".join(texts)


def differences(first: Record, means: list[dict[Key, dict[str, Any]]], region: str) -> None:
    """The main method against the ones that it has to beat."""
    print()
    for rival in RIVALS:
        by_level = [by[first.study.main, region]["psnr"].value - by[rival, region]["psnr"].value for by in means]
        said = ", ".join(f"{gap:+.2f} at {level.short}" for gap, level in zip(by_level, first.levels, strict=True))
        print(f"- {first.study.main} over {rival}, PSNR in dB: {said}")


def each(folds: list[Record]) -> None:
    """PSNR of every patient, whole image, first protocol."""
    first = folds[0]
    label = first.study.protocols[0].label
    print(f"\n### Every patient: PSNR (dB), whole image, {label}\n")
    heads = [f"{place + 1}: {level.short}" for place in range(len(folds)) for level in first.levels]
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for method in first.methods:
        values = [
            record.scores[level][label].mean(method, "image", "psnr").value
            for record in folds
            for level in range(len(first.levels))
        ]
        print(f"| {method} | {' | '.join(f'{value:.2f}' for value in values)} |")


def calls(folds: list[Record], method: str) -> str:
    """Network calls."""
    return str(folds[0].levels[0].calls[method] or "-")


def seconds(folds: list[Record], method: str) -> float:
    """Processor seconds of a slice, mean over folds and levels."""
    values = [level.seconds[method] for record in folds for level in record.levels]
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("cost", "run", "table"))
    parser.add_argument("--only", type=int, choices=range(len(PATIENTS)), help="one fold")
    parser.add_argument("--out", type=Path, default=Path("runs/ct-study"))
    options = parser.parse_args()
    if options.action == "cost":
        cost()
    elif options.action == "run":
        run(options.out, options.only)
    else:
        table(options.out)


if __name__ == "__main__":
    main()
