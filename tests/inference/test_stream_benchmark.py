"""The benchmark of scans of any length: the scans that it makes, and its clock in small."""

import re
import subprocess
import sys

import numpy as np
import pytest
from benchmark_script import FOLDER, benchmark_script

from cdm4mi import io


@pytest.fixture(scope="module")
def benchmark():
    return benchmark_script("stream")


def test_one_scan_in_every_format(benchmark, tmp_path):
    forms = ("nii", "tiff", "dicom", "dcm", "packed.dcm", "float.dcm")
    scans = [io.read(benchmark.made(tmp_path, form, 3, 32)) for form in forms]
    for scan in scans:
        assert scan.spacing == pytest.approx((2, 0.7, 0.7), abs=0.05)
        np.testing.assert_array_equal(scan.array, scans[0].array)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_clock_is_that_of_the_process_over_that_of_its_network_alone():
    command = [sys.executable, FOLDER / "stream.py", "--clock", "--side", "32", "--slices", "3"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    times = re.search(r"wall clock (\S+) s: (\S+) s to start and load the model, (\S+) s to restore", found)
    wall, start, restoring = map(float, times.groups())
    inside, calls, alone = map(float, re.search(r"network (\S+) s of it, in (\d+) calls; .* (\S+) s\n", found).groups())
    assert wall == pytest.approx(start + restoring, abs=0.2) and calls == 1
    assert 0 < inside < restoring + 0.1 and alone > 0
    ratio = float(re.search(r"over this (\d+\.\d+),", found)[1])
    assert wall / (alone + 0.006) - 1 < ratio < wall / max(alone - 0.006, 1e-3) * 1.1 + 1
