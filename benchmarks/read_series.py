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
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from cdm4mi import io


def save_series(folder: Path, count: int) -> None:
    """Slices of 512 x 512 pixels of noise (12 bits of 16) under the header of the CT slice that pydicom ships."""
    folder.mkdir()
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.Rows = dataset.Columns = 512
    for k in range(count):
        dataset.PixelData = np.random.default_rng(k).integers(-2048, 2048, (512, 512), np.int16).tobytes()
        dataset.ImagePositionPatient, dataset.InstanceNumber = [x, y, z + 1.25 * k], k + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{k:04d}")


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
        folder = Path(name) / "series"
        save_series(folder, arguments.slices)
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
