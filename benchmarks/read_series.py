"""How long ``io.read`` takes for a 300-slice 512 x 512 CT series, against what pydicom alone needs to decode the files.

Run: python benchmarks/read_series.py [--slices 300] [--repeats 7]. The series is made of noise in a temporary folder.
The bound is 1.3; pydicom's share is ``dcmread`` and ``pixel_array`` of every file, and nothing is stacked or rescaled.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom

from cdm4mi import io

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "io"))
from dicom_series import save, slices


def pydicom_alone(folder: Path) -> None:
    decoded = [pydicom.dcmread(path).pixel_array for path in folder.iterdir()]
    assert decoded[0].shape == (512, 512)


def ours(folder: Path) -> None:
    assert io.read(folder).shape[1:] == (512, 512)


def seconds(work, folder: Path) -> tuple[float, float]:
    """Wall clock and user time of one run; the second leaves out what the system needs to find memory."""
    wall, user = time.perf_counter(), os.times().user
    work(folder)
    return time.perf_counter() - wall, os.times().user - user


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for at in range(0, arguments.slices, 50):
            count = min(50, arguments.slices - at)
            places = (np.arange(count) + at) * 1.25
            save(slices(count, rows=512, columns=512, positions=places, seed=at, bits=13), folder / "in" / str(at))
        for path in list((folder / "in").rglob("*")):
            if path.is_file():
                path.rename(folder / f"{path.parent.name}-{path.name}")
        for part in (folder / "in").iterdir():
            part.rmdir()
        (folder / "in").rmdir()
        # Alternating, so that a busy machine slows both alike.
        pairs = [(seconds(pydicom_alone, folder), seconds(ours, folder)) for _ in range(arguments.repeats)]
    alone, own = np.array(pairs).min(axis=0)
    for n, clock in enumerate(("wall clock", "user time")):
        print(
            f"{clock}, best of {arguments.repeats}: pydicom {alone[n]:.3f} s, io.read {own[n]:.3f} s, "
            f"ratio {own[n] / alone[n]:.2f} (bound 1.3)"
        )
    return 0 if own[0] <= 1.3 * alone[0] else 1


if __name__ == "__main__":
    sys.exit(main())
