"""Restoring scans of any length: peak memory against the number of slices, time beside the network's, and kills.

    python benchmarks/stream.py [--side 512] [--slices 275] [--formats nii dicom] [--kills 20] [--network-slices N]
        [--report]

Restores a CT of so many slices, and one of four times as many, in a process each, and prints the peak of its memory and
how much longer it took than its network. Then it kills a restoration of the shorter scan so often, at random moments,
starting it again each time, and compares the result with that of a run that was left alone. --network-slices: the
network restores the first N slices alone, which shows the peak of the memory, and the time of all else, sooner.
--report: with the trust report.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from cdm4mi import io
from cdm4mi.io.arrays import arrays_in, converted

SIGMA = 25.0


def made(folder: Path, form: str, slices: int, side: int) -> Path:
    """A CT of a body with noise: a NIfTI file, or a folder of DICOM files."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    body = np.where((y / 0.42) ** 2 + (x / 0.35) ** 2 < 1, 40.0, -1000.0) + 60 * (y**2 + x**2 < 0.01)
    noises = np.random.default_rng(0)

    def noisy(plane: NDArray[Any]) -> NDArray[Any]:
        return np.round(body + SIGMA * noises.standard_normal(body.shape)).astype(np.float32)

    path = folder / (f"ct-{slices}" if form == "dicom" else f"ct-{slices}.{form}")
    if form != "dicom":
        with arrays_in(folder):
            array = converted(np.broadcast_to(np.float32(0), (slices, side, side)), np.float32, noisy)
            io.write(io.Volume(array, np.diag([0.7, 0.7, 2.0, 1.0])), path, dtype=np.int16)
        return path
    path.mkdir()
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.Rows = dataset.Columns = side
    for k in range(slices):
        dataset.PixelData = (noisy(body) + 1024).astype(np.int16).tobytes()
        dataset.ImagePositionPatient = [0, 0, 2 * k]
        dataset.InstanceNumber = k + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{k + 1}"
        dataset.save_as(path / f"{k:05d}.dcm")
    return path


def restored(source: Path, target: Path, network_slices: int, batch: int | None, report: bool) -> None:
    """Restore in this process; prints a line, then JSON: seconds, those of the network, peak memory in bytes."""
    import torch

    from cdm4mi.inference.denoise import denoise_file
    from cdm4mi.inference.restorer import Restorer
    from cdm4mi.trust.during import ReportWhileRestoring

    network, called, restore = 0.0, 0, Restorer.restore_moments

    def timed(self: Restorer, y: NDArray[Any], *arguments: Any, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        nonlocal network, called
        called += len(y)
        if called > network_slices:
            return y[:, :1], np.zeros_like(y[:, :1])
        began = time.perf_counter()
        moments = restore(self, y, *arguments, **options)
        network += time.perf_counter() - began
        return moments

    Restorer.restore_moments = timed  # type: ignore[method-assign]
    torch.set_num_threads(2)
    began = time.perf_counter()
    print("begun", flush=True)
    observer = ReportWhileRestoring(target.with_name("report"), force=True) if report else None
    denoise_file(source, target, modality="CT", device="cpu", precision="auto", batch=batch, observer=observer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "network": network, "peak": peak}))


def child(source: Path, target: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that restores a scan."""
    arguments = ["--network-slices", options.network_slices, *(["--batch", options.batch] if options.batch else [])]
    arguments += ["--report"] if options.report else []
    command = [sys.executable, __file__, "--restore", source, target, *arguments]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def values(path: Path) -> str:
    """The hash of a scan's values."""
    with arrays_in(path.parent):
        return str(io.input_record(io.read(path)).sha256)


def kills(source: Path, target: Path, options: argparse.Namespace, seconds: float, slabs: int) -> None:
    """Kill a restoration of so many slabs at random moments; ``seconds``: what one takes that is left alone."""
    rng, left = random.Random(0), [0]
    journal = target.with_name(f".cdm4mi-partial-{target.name}") / "journal"
    for _ in range(options.kills):
        process = child(source, target, options)
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        goal = left[-1] + rng.randrange(2 * slabs // options.kills + 1)
        while process.poll() is None and finished(journal) < goal:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds / slabs))
        process.kill()
        process.communicate()
        left.append(finished(journal))
        if target.exists():
            break
    print(f"  {len(left) - 1} kills, slabs left by each: {', '.join(map(str, left[1:]))}")
    print(f"  under the output's name: {'all' if target.exists() else 'nothing'}")
    if not target.exists():
        assert child(source, target, options).wait() == 0
    print(f"  state folder removed: {not journal.parent.exists()}")


def finished(journal: Path) -> int:
    """How many slabs a journal names."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int, default=275)
    parser.add_argument("--formats", nargs="+", default=["nii", "nii.gz", "dicom"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--network-slices", type=int, default=10**9)
    parser.add_argument("--batch", type=int, help="slices at a time")
    parser.add_argument("--report", action="store_true", help="make the trust report too")
    parser.add_argument("--restore", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.restore:
        restored(*options.restore, options.network_slices, options.batch, options.report)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for form in options.formats:
            peaks, seconds = [], 0.0
            for slices in (4 * options.slices, options.slices):
                source = made(folder, form, slices, options.side)
                target = folder / source.name.replace("ct", "out", 1)
                found = json.loads(child(source, target, options).communicate()[0].splitlines()[-1])
                seconds = found["seconds"]
                peaks.append(found["peak"])
                print(
                    f"{form}, {options.side} x {options.side} x {slices}: peak {found['peak'] / 1e9:.2f} GB; "
                    f"{seconds:.1f} s, of which network {found['network']:.1f} s",
                    flush=True,
                )
            print(f"  four times the slices: {peaks[0] / peaks[1] - 1:+.1%} memory")
            if options.kills:
                killed = target.with_name(f"killed-{target.name}")
                slabs = -(-options.slices // (options.batch or max(1, 2**18 // options.side**2)))
                kills(source, killed, options, seconds, slabs)
                print(f"  bit-equal: {values(killed) == values(target)}", flush=True)


if __name__ == "__main__":
    main()
