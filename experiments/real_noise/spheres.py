"""What is left of small spheres in a chest CT at a quarter of the dose, restored in one plane and in three.

Spheres of -40 HU are put into soft tissue of the noisy scan; what is restored with and without them differs by what is
left of them. The chest is one that the shipped model was trained on (no other CT here has thin slices): it says how the
two differ, not how good either is. Run from the checkout (a quarter of an hour of one core):
    python -m experiments.real_noise.spheres [--model CHECKPOINT]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.ndimage import uniform_filter

import cdm4mi
from cdm4mi import io
from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.data.add_noise import noisy_scan
from cdm4mi.io import Volume
from cdm4mi.models.checkpoint import load_model
from experiments.real_noise.orientations import asked
from experiments.real_noise.planes import PLANES
from experiments.real_noise.study import table
from experiments.shared import SCANS

CHEST, SLICES = "ct/lidc_0314_chest.nii.gz", slice(30, 78)
DOSE, CONTRAST = 0.25, -40.0
DIAMETERS = 5, 7, 10
"""In pixels of a slice."""
AROUND = 12
"""Slices, rows and columns on each side that a place has for itself."""
SOFT = -20.0, 90.0
MOST = 40


def places(array: np.ndarray) -> list[np.ndarray]:
    """Voxels (slice, row, column) in even soft tissue, apart from each other, in an order that a seed decides."""
    mean = uniform_filter(array, (5, 9, 9))
    even = uniform_filter(((mean > SOFT[0]) & (mean < SOFT[1])).astype(np.float32), (9, 13, 13)) > 0.999
    inner = np.zeros(array.shape, bool)
    inner[(slice(AROUND, -AROUND),) * 3] = True
    found: list[np.ndarray] = []
    for place in np.random.default_rng(0).permutation(np.argwhere(even & inner)):
        if all(np.abs(place - other).max() > 2 * AROUND for other in found):
            found.append(place)
    return found[:MOST]


def spheres(volume: Volume, where: list[np.ndarray], diameter: float) -> np.ndarray:
    """The share of a sphere in each voxel, 0 to 1; diameter in pixels of a slice."""
    sides = np.array(volume.spacing) / volume.spacing[2]
    share = np.zeros(volume.shape, np.float32)
    for place in where:
        box = tuple(slice(p - AROUND, p + AROUND + 1) for p in place)
        away = np.indices(share[box].shape) - AROUND
        radius = np.sqrt(np.square(away * sides[:, None, None, None]).sum(0))
        share[box] = np.clip(diameter / 2 + 0.5 - radius, 0, 1)
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    read = io.read(SCANS / CHEST)
    clean = Volume(read.array[SLICES], read.affine, "CT")
    noisy = noisy_scan(clean, noise_from_spec("low_dose_ct", {"dose": DOSE}), seed=7).volume.array
    where = places(clean.array)
    models = {"the noisy scan": None, **{f"{n} plane(s)": asked(model, planes=n) for n in PLANES}}
    lines = []
    for name, how in models.items():

        def restored(array: np.ndarray, how: object = how) -> np.ndarray:
            return array if how is None else cdm4mi.denoise(clean.with_array(array), how).volume.array

        without = restored(noisy)
        line = [name]
        for diameter in DIAMETERS:
            share = spheres(clean, where, diameter)
            left = restored(noisy + CONTRAST * share) - without
            discs = [(k, share[k, r - AROUND : r + AROUND, c - AROUND : c + AROUND] > 0.5, r, c) for k, r, c in where]
            kept, error = [], []
            for k, inside, r, c in discs:
                at = (k, slice(r - AROUND, r + AROUND), slice(c - AROUND, c + AROUND))
                kept.append(left[at][inside].mean() / (CONTRAST * share[at][inside].mean()))
                error.append((without[at] - clean.array[at])[inside].mean())
            d_prime = np.mean(kept) * abs(CONTRAST) / np.std(error)
            line.append(f"{np.mean(kept):.0%}, {np.std(error):.1f} HU, {d_prime:.1f}")
        lines.append(line)
        print(" | ".join(line), flush=True)
    print(
        f"\nSpheres of {CONTRAST:g} HU in a chest CT, {DOSE:.0%} of the dose, at {len(where)} places: contrast left "
        "in the middle slice, spread of the mean over its disc, their ratio d'\n"
    )
    print(table(["", *(f"{d} pixels" for d in DIAMETERS)], lines))


if __name__ == "__main__":
    main()
