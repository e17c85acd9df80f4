"""What the trust report adds to the time of ``denoise``: the same scan restored without and with it, in turns.

    python benchmarks/report.py SCAN [--modality CT] [--times 3]

One core, one thread, a process each; prints the seconds of each and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(scan: Path, modality: str | None, report: bool) -> float:
    """Processor time of one run of the command, its start with it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cdm4mi", "denoise", str(scan), f"{folder}/out.nii.gz", "--threads", "1"]
        command += ["--modality", modality] if modality else []
        command += ["--report", f"{folder}/report"] if report else []
        before = os.times().children_user + os.times().children_system
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, used = time.perf_counter() - began, os.times().children_user + os.times().children_system - before
    print(f"{'with' if report else 'without'} a report: {used:.1f} s of a core, {wall:.1f} s in all", flush=True)
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--modality")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.times):
        for report, times in found.items():
            times.append(seconds(options.scan, options.modality, report))
    without, with_report = (statistics.median(times) for times in found.values())
    print(f"medians: {without:.1f} s without, {with_report:.1f} s with a report, {with_report / without - 1:+.1%}")


if __name__ == "__main__":
    main()
