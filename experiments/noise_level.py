"""Measured over true standard deviation of the noise in real scans, for every kind of noise: prints the record.

    python -m experiments.noise_level [--seed N]

Noise is simulated on a few slices of scans, or is that of a scan acquired twice. A minute or two on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cdm4mi import io
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.degradation import Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.intensity import foreground, window_for
from cdm4mi.measure.noise_level import NONE, NoiseEstimate, estimate_noise
from experiments.shared import SCANS

SLICES = 4
ALONG = 12
"""Slices along the body, for what differs from slice to slice."""
STRIPPED = [f"mr/ds002748_sub-{n}_T1w.nii.gz" for n in (17, 18, 19, 20)]
"""Without a skull, and exactly 0 around: what is measured in the air is the noise that was added."""
WHOLE = ["mr/vs_seg_001_T1.nii.gz", "mr/pyradiomics_brain1.nii.gz", "mr/pyradiomics_brain2.nii.gz"]
CT = [f"ct/{name}.nii.gz" for name in ("acrin_flt_001_body", "lidc_0314_chest", "rider_pilot_chest")]
CT += ["dicom/ge_head_ct_uneven"]
MR_NOISES: dict[str, dict[str, Any]] = {
    "white, variance 0.01": {"type": "gaussian", "variance": 0.01},
    "white, variance 0.05": {"type": "gaussian", "variance": 0.05},
    "Rician 3 %": {"type": "rician", "percent": 3},
    "Rician 9 %": {"type": "rician", "percent": 9},
    "Rician 15 %": {"type": "rician", "percent": 15},
    "zero-filled, Rician 9 %": {"type": "coloured", "spectrum": "zero_filled", "percent": 9, "magnitude": 1},
    "varying by half, Rician 5 %": {"type": "rician", "percent": 5, "variation": 0.5},
    "smoothed by 0.7 pixels, variance 0.01": {
        "type": "coloured",
        "spectrum": "smoothed",
        "smoothing": 0.7,
        "variance": 0.01,
    },
}
CT_NOISES: dict[str, dict[str, Any]] = {
    "white, variance 0.01": {"type": "gaussian", "variance": 0.01},
    "white, variance 0.05": {"type": "gaussian", "variance": 0.05},
    "smoothed by 0.7 pixels, 40 HU": {"type": "coloured", "spectrum": "smoothed", "smoothing": 0.7, "sigma_hu": 40},
    **{f"ramp, {hu} HU": {"type": "coloured", "spectrum": "ct_kernel", "sigma_hu": hu} for hu in (20, 40, 80)},
    "low dose, 25 %": {"type": "low_dose_ct", "dose": 0.25},
    "low dose, 10 %": {"type": "low_dose_ct", "dose": 0.1},
}


@dataclass(frozen=True)
class Scan:
    """Some slices (N, rows, columns), which of their pixels show the patient, and their frame; ``sigma``: the
    standard deviation of the noise that they have before any is added, in their units; ``by_slice``: in each."""

    slices: NDArray[np.float32]
    patient: NDArray[np.bool_]
    frame: Frame
    sigma: float
    by_slice: NDArray[np.float64]

    @classmethod
    def read(cls, name: str, count: int = SLICES, part: tuple[float, float] = (0.3, 0.7)) -> Scan:
        """Slices of a part of a scan, its middle by default."""
        volume = io.read(SCANS / name)
        first, last = (share * len(volume.slices()) for share in part)
        slices = volume.slices()[np.linspace(first, last, count).astype(int)].astype(np.float32)
        frame = Frame.of(window_for(volume), volume.spacing[1:])
        noise = NONE if name in STRIPPED else estimate_noise(slices)
        return cls(slices, foreground(slices, frame.modality), frame, noise.sigma, noise.of_slices(count))


@dataclass(frozen=True)
class Result:
    """What was measured, the true standard deviation over the patient, the true correlations, and the true standard
    deviation in each slice."""

    found: NoiseEstimate
    sigma: float
    correlations: tuple[float, float]
    by_slice: NDArray[np.float64] | None = None


def simulated(scan: Scan, section: dict[str, Any], seed: int) -> Result:
    """Noise added to a scan, one map and one spectrum for all slices."""
    noise = noise_from_spec(section["type"], {key: value for key, value in section.items() if key != "type"})
    x0 = torch.from_numpy(scan.frame.normalised(scan.slices))
    random = generator(seed)
    parameter = noise.draw(random)
    y = noise.apply(x0, parameter, random, scan.frame)
    noisy = np.where(scan.slices < -1024, scan.slices, scan.frame.physical(y.numpy()))  # padding of a CT stays
    added = (noisy - scan.slices)[scan.patient]
    bright = scan.slices[scan.patient] > 0.3 * scan.frame.high if section.get("percent") else np.ones_like(added, bool)
    # of a magnitude the level is that of bright tissue
    sigma = float(np.std(added[bright]))
    by_slice = [np.std(a[p]) for a, p in zip(noisy - scan.slices, scan.patient, strict=True)]
    correlations = noise.correlations(x0, y, parameter, scan.frame) if section["type"] != "rician" else (0.0, 0.0)
    return Result(
        estimate_noise(noisy), float(np.hypot(sigma, scan.sigma)), correlations, np.hypot(by_slice, scan.by_slice)
    )


def repeated(path: Path) -> Iterator[Result]:
    """Volumes of a diffusion scan that was acquired twice: the noise is the difference over the root of 2."""
    volumes = io.read(path).array
    patient = volumes[1:21].mean(0) > 1.2 * volumes[1:21].mean()
    for k in (1, 5, 9, 13, 17):
        noise = (volumes[k] - volumes[k + 21]) / 2**0.5
        power = np.mean(noise[patient] ** 2)
        correlations = []
        for axis in (1, 2):
            shifted = np.roll(noise, 1, axis)
            both = patient & np.roll(patient, 1, axis)
            correlations.append(float((noise * shifted)[both].mean() / power))
        yield Result(estimate_noise(volumes[k]), float(np.median(np.abs(noise[patient])) / 0.6745), tuple(correlations))


def row(kind: str, results: list[Result]) -> str:
    """A row of the table."""
    ratios = [result.found.sigma / result.sigma for result in results]
    true, found = (
        [f"{np.mean([r[axis] for r in rows]):.2f}" for axis in (0, 1)]
        for rows in ([r.correlations for r in results], [r.found.correlations for r in results])
    )
    error = np.abs([np.subtract(r.found.correlations, r.correlations) for r in results])
    counts = [f"{sum(getattr(r.found, name) for r in results)} of {len(results)}" for name in ("magnitude", "varying")]
    cells = [kind, f"**{np.median(ratios):.2f}**", f"{min(ratios):.2f} to {max(ratios):.2f}"]
    cells += [" / ".join(true), " / ".join(found), f"{np.median(error):.2f}", *counts]
    return f"| {' | '.join(cells)} |"


def by_slice(seed: int) -> None:
    """A table of slices along the body, whose noise differs."""
    heads = ["scan", "noise", "true, least to most", "measured / true, median of the slices", "worst"]
    heads += ["one level for all / true, worst"]
    print(f"\n## Low dose from slice to slice ({ALONG} slices along the body)\n")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for name in CT[:2]:
        scan = Scan.read(name, ALONG, (0.05, 0.95))
        for kind in ("low dose, 25 %", "low dose, 10 %"):
            result = simulated(scan, CT_NOISES[kind], seed)
            ratio, one = (found / result.by_slice for found in (result.found.of_slices(ALONG), result.found.sigma))
            worst = [f"{max(values, key=lambda value: abs(np.log(value))):.2f}" for values in (ratio, one)]
            span = f"{result.by_slice.min():.0f} to {result.by_slice.max():.0f} HU"
            cells = [Path(name).name.split("_")[0], kind, span, f"**{np.median(ratio):.2f}**", *worst]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    heads = ["noise", "measured / true, median", "range", "true correlation of the next row / column", "measured"]
    heads += ["median error", "magnitude", "varying"]
    every: list[Result] = []
    for title, names, noises in (
        ("MR without a skull (sub-17 to sub-20)", STRIPPED, MR_NOISES),
        ("MR of the whole head (vs_seg_001, pyradiomics_brain1 and 2)", WHOLE, MR_NOISES),
        ("CT (acrin, lidc, rider, ge head)", CT, CT_NOISES),
    ):
        print(f"\n## {title}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
        scans = [Scan.read(name) for name in names]
        for number, (kind, section) in enumerate(noises.items()):
            results = [simulated(scan, section, seed + 100 * number + k) for k, scan in enumerate(scans)]
            print(row(kind, results), flush=True)
            every += results
    by_slice(seed)
    print(f"\n## Diffusion MR acquired twice\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    results = list(repeated(SCANS / "repeats" / "dti_21x2.nii.gz"))
    print(row("real", results))
    print(f"\n## Absolute error of the two correlations, over all {len(every + results)} images\n")
    for name, axis in (("next row", 0), ("next column", 1), ("both", slice(None))):
        errors = np.abs([np.subtract(r.found.correlations, r.correlations)[axis] for r in every + results])
        print(f"- {name}: median {np.median(errors):.3f}, 90th percentile {np.quantile(errors, 0.9):.3f}")


if __name__ == "__main__":
    main()
