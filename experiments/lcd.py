"""How well lesions are seen in the CT phantom of LCD_CT before and after restoration, by a Hotelling observer.

Run from the checkout (one thread, some three minutes; BM3D where its package is):
    python -m experiments.lcd [--model shipped CHECKPOINT ...] [--out FILE]

Ten images with and ten without four lesions at each of three doses, all with noise of their own. The phantom is the
same after a quarter turn, so each image without lesions gives four regions without one at a lesion's site.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.io import Volume
from cdm4mi.lesions.channels import SPARSE, channel_outputs, dog_channels
from cdm4mi.lesions.ideal import ideal_detectability, noise_density
from cdm4mi.lesions.methods import INPUT, Method, classical, trained, untouched
from cdm4mi.lesions.observer import Detectability, hotelling_observer
from cdm4mi.lesions.shapes import Site, region
from cdm4mi.lesions.tissue import SIDE
from cdm4mi.measure.noise_level import estimate_noise
from experiments.real_noise.study import loaded, table
from experiments.shared import SCANS

FOLDER, PIXELS, REPEATS = SCANS / "lcd", 256, 10
DOSES = ("100", "055", "010")
CROP = np.s_[..., 40:216, 40:216]
"""What methods are given of an image: the lesions, what observers see around them, and some more."""


def truth() -> np.ndarray:
    """The phantom without noise, HU."""
    return np.fromfile(FOLDER / "ground_truth.raw", "<u2").reshape(PIXELS, PIXELS).astype(np.float64) - 1000


def images(dose: str, signal: str) -> np.ndarray:
    """Repeats (10, rows, columns) in HU; signal: present or absent."""
    files = [FOLDER / f"dose_{dose}/signal_{signal}/signal_{signal}_{k:03d}.raw" for k in range(1, REPEATS + 1)]
    return np.stack([np.fromfile(file, "<i2").reshape(PIXELS, PIXELS) for file in files]).astype(np.float32) - 1000


def lesions() -> list[tuple[Site, float, int]]:
    """Centre in the crop, contrast in HU and area in pixels of the lesions, the smallest first."""
    labels, count = ndimage.label(truth()[CROP] > 0)
    found = []
    for number in range(1, count + 1):
        row, column = (round(float(at.mean())) for at in np.nonzero(labels == number))
        found.append(
            (Site(0, row, column), float(truth()[CROP][labels == number].max()), int((labels == number).sum()))
        )
    return sorted(found, key=lambda lesion: lesion[2])


def turned(without: np.ndarray, site: Site) -> np.ndarray:
    """Regions (4 n, SIDE, SIDE) at the site of images (n, rows, columns) turned by each quarter."""
    return np.concatenate([region(np.rot90(without, k, (1, 2)), site, SIDE) for k in range(4)])


def seen(without: np.ndarray, with_: np.ndarray, site: Site) -> Detectability:
    """The Hotelling observer with three channels: for ten there are too few images."""
    channels = dog_channels(SIDE, SPARSE)
    regions = turned(without, site), region(with_, site, SIDE)
    return hotelling_observer(*(channel_outputs(part, channels) for part in regions))


def bound(without: np.ndarray, site: Site) -> float:
    """d' of the ideal observer of the input."""
    regions = turned(without - without.mean(0), site) * np.sqrt(REPEATS / (REPEATS - 1))
    return ideal_detectability(region(truth()[CROP], site, SIDE), noise_density(regions, SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["shipped"], help="checkpoints, or shipped")
    parser.add_argument("--out", type=Path, help="write the table here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods: dict[str, Method] = {INPUT: untouched(), "NLM": classical("nlm")}
    methods |= {"BM3D": classical("bm3d")} if BASELINES["bm3d"].installed else {}
    methods |= {title: trained(model) for title, model in loaded(options.model).items()}
    rows = []
    for dose in DOSES:
        absent, present = images(dose, "absent"), images(dose, "present")
        sigma = estimate_noise(absent).sigma
        scan = Volume(absent, np.eye(4), "CT")
        restored = {
            title: [method.restore(part[CROP][:, None], sigma, scan) for part in (absent, present)]
            for title, method in methods.items()
        }
        found: dict[str, list[Detectability]] = {title: [] for title in methods}
        for site, contrast, area in lesions():
            cells = [f"{dose} ({sigma:.0f} HU)", f"{2 * np.sqrt(area / np.pi):.1f}", f"{contrast:.0f}"]
            cells.append(f"{bound(absent[CROP], site):.2f}")
            for title, (without, with_) in restored.items():
                its = seen(without, with_, site)
                found[title].append(its)
                low, high = its.auc_interval
                cells.append(f"{its.d:.1f}, {its.auc:.2f} ({low:.2f} to {high:.2f})")
            rows.append(cells)
        means = [f"{np.mean([i.d for i in its]):.1f}, {np.mean([i.auc for i in its]):.2f}" for its in found.values()]
        rows.append(
            [f"{dose}, mean", "", "", f"{np.mean([bound(absent[CROP], at[0]) for at in lesions()]):.2f}", *means]
        )
    heads = ["dose", "px", "HU", "bound", *(f"{title}: d', AUC" for title in methods)]
    text = table(heads, rows)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
