"""How long ``io.read`` takes for a 300-slice 512 x 512 CT series, against what pydicom alone needs to decode the files.

Run: python benchmarks/read_series.py [--slices 300] [--repeats 7]. The series is made of noise in a temporary folder.
The bound is 1.3; pydicom's share is ``dcmread`` and ``pixel_array`` of every file, and nothing is stacked or rescaled.
"""

from __future__ import annotations

import argparse
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


def seconds(work, folder: Path) -> float:
    """Processor time of one run: on a busy machine the wall clock says more of the others."""
    began = time.process_time()
    work(folder)
    return time.process_time() - began


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
    alone, own = (min(times) for times in zip(*pairs, strict=True))
    ratio = own / alone
    print(f"{arguments.slices} slices, best of {arguments.repeats}: pydicom alone {alone:.3f} s, io.read {own:.3f} s")
    print(f"ratio {ratio:.2f} (bound 1.3), median of the pairs {np.median([b / a for a, b in pairs]):.2f}")
    return 0 if ratio <= 1.3 else 1


if __name__ == "__main__":
    sys.exit(main())
