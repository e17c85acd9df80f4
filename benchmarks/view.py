"""How soon ``cdm4mi view`` shows its first picture of a 512 x 512 x 100 CT, its restored twin beside it, in chromium.

Run: python benchmarks/view.py [--slices 100] [--repeats 3]. The scans are discs of noise in a temporary folder. Times
are from the request for the page to the picture on its canvas, by the page's own clock. The bound is 3 s, from the
server and from one file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from browser import Browser

BOUND = 3.0
VIEW = (sys.executable, "-m", "cdm4mi", "view")
FIRST = "performance.getEntriesByName('first picture')[0]"
COMPLETE = "document.body.dataset.complete"


def save_scans(folder: Path, slices: int) -> list[str]:
    """A disc of 40 HU in air with noise of 30 HU, and the same with a third of the noise."""
    y, x = np.mgrid[:512, :512] - 255.5
    disc = np.where(x * x + y * y < 200**2, 40.0, -1000.0)[..., None]
    noise = np.random.default_rng(0).normal(0, 30, (512, 512, slices))
    paths = []
    for name, share in (("scan", 1.0), ("restored", 1 / 3)):
        paths.append(str(folder / f"{name}.nii"))
        nib.save(
            nib.Nifti1Image(np.rint(disc + share * noise).astype(np.int16), np.diag([0.7, 0.7, 2.5, 1])), paths[-1]
        )
    return paths


def shown(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds from the request to the first picture, and until all voxels are there."""
    page = browser.page()
    start = time.perf_counter()
    page.open(address, COMPLETE, seconds=120)
    whole = time.perf_counter() - start
    first = page.run(f"{FIRST}.startTime") / 1000
    page.open("about:blank")  # gives the memory back
    return first, whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = save_scans(folder, arguments.slices)
        browser = Browser(folder / "browser")
        start = time.perf_counter()
        server = subprocess.Popen(
            [*VIEW, *paths, "--no-browser", "--modality", "CT"], stdout=subprocess.PIPE, text=True
        )
        address = server.stdout.readline().split()[0]
        print(f"512 x 512 x {arguments.slices}, input and restored")
        print(f"command to address: {time.perf_counter() - start:.1f} s")
        served = [shown(browser, address) for _ in range(arguments.repeats)]
        server.terminate()
        server.wait()
        start = time.perf_counter()
        page = folder / "page.html"
        subprocess.run([*VIEW, *paths, "--modality", "CT", "--out", page], check=True, stdout=subprocess.DEVNULL)
        print(f"command to one file of {page.stat().st_size / 1e6:.0f} MB: {time.perf_counter() - start:.1f} s")
        filed = [shown(browser, page.as_uri()) for _ in range(arguments.repeats)]
        browser.close()
    for kind, times in (("from the server", served), ("from one file", filed)):
        first, whole = (max(column) for column in zip(*times, strict=True))
        print(f"{kind}, slowest: first picture after {first:.2f} s (bound {BOUND:g}), all voxels after {whole:.1f} s")
    return int(any(first > BOUND for first, _ in served + filed))


if __name__ == "__main__":
    sys.exit(main())
