"""Restoring scans of any length: peak memory against the number of slices, time beside the network's, and kills.

    python benchmarks/stream.py [--side 512] [--slices 275] [--formats nii dicom] [--kills 20] [--network-slices N]
        [--report] [--uncertainty] [--planes 3]
    python benchmarks/stream.py --clock [--side 512] [--slices 300] [--formats dicom]

Restores a CT of so many slices, and one of four times as many, in a process each, and prints the peak of its memory and
how much longer it took than its network. Then it kills a restoration of the shorter scan so often, at random moments,
starting it again each time, and compares the result with that of a run that was left alone. --network-slices: the
network restores the first N slices of each shape alone, which shows the peak of the memory, and the time of all else,
sooner.
--report: with the trust report; --uncertainty: with the standard deviation of two samples, of a DICOM scan as a
Parametric Map; --planes 3: with the slices along rows and columns too. Formats: an ending, or

    dicom       a series, a file for each slice
    dcm         one file of many frames (Enhanced CT); packed.dcm: compressed frames (RLE); float.dcm: float pixels

--clock: restores one scan with the network for every slice, on a machine that does nothing else, and compares the wall
clock of the process from its start to its end with the time that the network takes by itself: after the restoration
the same process calls it as often, on images of the same shapes, with nothing beside it. (Beside reading and writing,
which take some of its cores, it is slower: against that time a restoration would look better than it is.)
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, ParametricMapStorage, RLELossless

from cdm4mi import io
from cdm4mi.io.arrays import arrays_in, converted

SIGMA = 25.0


def made(folder: Path, form: str, slices: int, side: int) -> Path:
    """A CT of a body with noise in one of the formats."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    body = np.where((y / 0.42) ** 2 + (x / 0.35) ** 2 < 1, 40.0, -1000.0) + 60 * (y**2 + x**2 < 0.01)
    noises = np.random.default_rng(0)

    def noisy(plane: NDArray[Any]) -> NDArray[Any]:
        return np.round(body + SIGMA * noises.standard_normal(body.shape)).astype(np.float32)

    path = folder / (f"ct-{slices}" if form == "dicom" else f"ct-{slices}.{form}")
    if "d" not in form:
        with arrays_in(folder):
            array = converted(np.broadcast_to(np.float32(0), (slices, side, side)), np.float32, noisy)
            io.write(io.Volume(array, np.diag([0.7, 0.7, 2.0, 1.0])), path, dtype=np.int16)
        return path
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.Rows = dataset.Columns = side
    if form != "dicom":
        save_frames(path, dataset, form, (noisy(body) for _ in range(slices)), slices)
        return path
    path.mkdir()
    for k in range(slices):
        dataset.PixelData = (noisy(body) + 1024).astype(np.int16).tobytes()
        dataset.ImagePositionPatient = [0, 0, 2 * k]
        dataset.InstanceNumber = k + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{k + 1}"
        dataset.save_as(path / f"{k:05d}.dcm")
    return path


def save_frames(path: Path, dataset: Dataset, form: str, planes: Iterator[NDArray[Any]], count: int) -> None:
    """Write planes (HU) as the frames of one file: an Enhanced CT, or with float pixels a Parametric Map."""
    floats = form == "float.dcm"
    of_class = ParametricMapStorage if floats else EnhancedCTImageStorage
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = of_class
    shared, measures, orientation, line = (Dataset() for _ in range(4))
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.7], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    line.RescaleIntercept, line.RescaleSlope, line.RescaleType = (0 if floats else -1024), 1, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [line]
    for keyword in ("RescaleIntercept", "RescaleSlope", "PixelSpacing", "ImageOrientationPatient", "PixelData"):
        delattr(dataset, keyword)
    dataset.NumberOfFrames, dataset.SharedFunctionalGroupsSequence = count, [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in range(count):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 2 * k]
        group.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    if floats:
        dataset.BitsAllocated = 32
        for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, keyword)
        dataset.FloatPixelData = b"".join(plane.astype("<f4").tobytes() for plane in planes)
    else:
        stored = b"".join((plane + 1024).astype("<i2").tobytes() for plane in planes)
        dataset.add_new("PixelData", "OW", stored)
    if form == "packed.dcm":
        dataset.compress(RLELossless, encoding_plugin="pylibjpeg")
    dataset.save_as(path)


def restored(source: Path, target: Path, options: argparse.Namespace) -> None:
    """Restore in this process; prints a line, then JSON: seconds, those of the network, peak memory in bytes.

    With ``--clock`` another line of JSON follows: seconds of the same network calls with nothing beside them.
    """
    import torch

    from cdm4mi.inference.denoise import denoise_file
    from cdm4mi.inference.slices import SliceRestorer
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.trust.during import ReportWhileRestoring

    torch.set_num_threads(2)
    model, called, restore = load_model(), Counter[tuple[int, ...]](), SliceRestorer.moments
    network = NetworkTime(model.network)

    def first_slices(
        self: SliceRestorer, y: NDArray[Any], *given: Any, **keys: Any
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        called[y.shape[-2:]] += len(y)
        few = called[y.shape[-2:]] <= options.network_slices
        return restore(self, y, *given, **keys) if few else (y[:, :1], 0 * y[:, :1])

    SliceRestorer.moments = first_slices  # type: ignore[method-assign]
    began = time.perf_counter()
    print("begun", flush=True)
    observer = ReportWhileRestoring(target.with_name("report"), force=True) if options.report else None
    samples = {"estimate": "mean-of-k", "samples": 2, "steps": 2} if options.uncertainty else {}
    denoise_file(
        source,
        target,
        model,
        sampling={"planes": options.planes, **samples},
        uncertainty=spread_of(target) if options.uncertainty else None,
        modality="CT",
        device="cpu",
        precision="auto",
        batch=options.batch,
        observer=observer,
    )
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "network": network.seconds, "peak": peak_memory()}), flush=True)
    if options.clock:
        print(json.dumps({"alone": network.alone(), "calls": network.calls}))


def spread_of(target: Path) -> Path:
    """Where the standard deviation goes."""
    return target.with_name(f"sd-{target.name}" if target.suffix else f"sd-{target.name}-series.dcm")


class NetworkTime:
    """Time that a network takes: while it is called by others, and for the same calls by itself."""

    def __init__(self, network: Any) -> None:
        self.network, self.seconds, self.calls = network, 0.0, 0
        self._began = 0.0
        self._shapes: dict[Any, tuple[int, Any, Any]] = {}
        self._hooks = [
            network.register_forward_pre_hook(self._before, with_kwargs=True),
            network.register_forward_hook(self._after),
        ]

    def _before(self, network: Any, arguments: Any, keys: Any) -> None:
        import torch

        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        kind = (arguments[0].shape, precision)
        count, *_ = self._shapes.get(kind, (0,))
        self._shapes[kind] = count + 1, arguments, keys
        self._began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began
        self.calls += 1

    def alone(self) -> float:
        """Seconds of the calls that there were, made again on the last images of each shape."""
        import torch

        for hook in self._hooks:
            hook.remove()
        began = time.perf_counter()
        for (_, precision), (count, arguments, keys) in self._shapes.items():
            with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision is not None):
                for _ in range(count):
                    self.network(*arguments, **keys)
        return time.perf_counter() - began


def peak_memory() -> int:
    """The most memory (bytes) that this program held. (``ru_maxrss`` would count what started it, too.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def child(source: Path, target: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that restores a scan."""
    arguments = ["--network-slices", options.network_slices, "--planes", options.planes]
    arguments += ["--batch", options.batch] if options.batch else []
    arguments += [f"--{name}" for name in ("report", "uncertainty", "clock") if getattr(options, name)]
    command = [sys.executable, __file__, "--restore", source, target, *arguments]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def values(path: Path) -> str:
    """The hash of a scan's values."""
    with arrays_in(path.parent):
        return str(io.input_record(io.read(path)).sha256)


def kills(source: Path, target: Path, options: argparse.Namespace, seconds: float, slabs: int) -> None:
    """Kill a restoration of so many slabs at random moments; ``seconds``: what one takes that is left alone."""
    rng, left = random.Random(0), [0]
    state = target.with_name(f".cdm4mi-partial-{target.name}")
    for _ in range(options.kills):
        process = child(source, target, options)
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        goal = left[-1] + rng.randrange(2 * slabs // options.kills + 1)
        while process.poll() is None and finished(state) < goal:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds / slabs))
        process.kill()
        process.communicate()
        left.append(finished(state))
        if target.exists():
            break
    print(f"  {len(left) - 1} kills, slabs left by each: {', '.join(map(str, left[1:]))}")
    print(f"  under the output's name: {'all' if target.exists() else 'nothing'}")
    if not target.exists():
        assert child(source, target, options).wait() == 0
    print(f"  state folder removed: {not state.exists()}")


def clock(source: Path, target: Path, options: argparse.Namespace) -> None:
    """Restore with the network for every slice, and print its seconds, those of the whole process and their ratio."""
    began = time.perf_counter()
    process = child(source, target, options)
    assert process.stdout is not None
    begun, found = 0.0, {}
    for line in process.stdout:
        if line == "begun\n":
            begun = time.perf_counter() - began
        else:
            found |= json.loads(line)
            found.setdefault("wall", time.perf_counter() - began)
    assert process.wait() == 0
    wall, network, alone = found["wall"], found["network"], found["alone"]
    print(
        f"  wall clock {wall:.1f} s: {begun:.1f} s to start and load the model, {wall - begun:.1f} s to restore\n"
        f"  network {network:.2f} s of it, in {found['calls']} calls; with nothing beside them {alone:.2f} s\n"
        f"  wall clock over this {wall / alone:.3f}, without the start {(wall - begun) / alone:.3f}; bound 1.1",
        flush=True,
    )


def finished(state: Path) -> int:
    """How many slabs the journals of a state folder name."""
    return sum(journal.read_bytes().count(b"\n") for journal in state.rglob("journal"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int)
    parser.add_argument("--formats", nargs="+")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--network-slices", type=int, default=10**9)
    parser.add_argument("--batch", type=int, help="slices at a time")
    parser.add_argument("--report", action="store_true", help="make the trust report too")
    parser.add_argument("--uncertainty", action="store_true", help="make the map of the standard deviation too")
    parser.add_argument("--planes", type=int, choices=(1, 3), default=1, help="in which a volume is restored")
    parser.add_argument("--clock", action="store_true", help="compare the wall clock with the network's time")
    parser.add_argument("--restore", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.restore:
        restored(*options.restore, options)
        return
    options.slices = options.slices or (300 if options.clock else 275)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for form in options.formats or (["dicom"] if options.clock else ["nii", "nii.gz", "dicom"]):
            if options.clock:
                source = made(folder, form, options.slices, options.side)
                print(f"{form}, {options.side} x {options.side} x {options.slices}", flush=True)
                clock(source, folder / source.name.replace("ct", "out", 1), options)
                continue
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
                images = [(options.slices, options.side**2)]
                images += [(options.side, options.slices * options.side)] * (options.planes - 1)
                slabs = sum(-(-count // (options.batch or max(1, 2**18 // pixels))) for count, pixels in images)
                kills(source, killed, options, seconds, slabs)
                print(f"  bit-equal: {values(killed) == values(target)}", flush=True)


if __name__ == "__main__":
    main()
