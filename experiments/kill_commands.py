"""Commands that are killed, each a process of its own on small inputs, and what has to hold after a kill.

For `kills.py`, and with fewer kills for the tests. A process is forked from one that has imported the program already,
so that its time is the command's and not that of imports. Inputs are phantoms and slices that pydicom ships.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pydicom
import torch
import yaml
from PIL import Image
from pydicom.data import get_testdata_file

from cdm4mi import io
from cdm4mi.cli.main import run
from cdm4mi.data.phantoms import phantom
from cdm4mi.data.store import read_record
from cdm4mi.files import TEMPORARY
from cdm4mi.locks import NAME as LOCK

SECONDS, SECONDS_OF_ORPHANS = 120, 10
"""The longest that a command may take, and its workers may outlive it (one that is starting has its imports to do)."""
PARTS = ("state_dict", "ema", "optimizer_states", "lr_schedulers", "global_step")
"""What of a checkpoint has to be that of a run that nobody killed."""
OF_THIS_RUN = {"seconds", "written", "provenance"}
"""Keys of records that no two runs share."""
LOGS = ("logs", "tensorboard")
"""Folders of what is written line by line, which a kill may cut."""
PRELOAD = [
    "cdm4mi.cli.main",
    "cdm4mi.data.prepare",
    "cdm4mi.evaluation.benchmark.run",
    "cdm4mi.evaluation.report",
    "cdm4mi.inference.calibrate",
    "cdm4mi.inference.denoise",
    "cdm4mi.planning.plan_file",
    "cdm4mi.training.distill",
    __name__,
]
MODEL = """
name: small
seed: 7
model:
  image_size: 32
  timesteps: 50
  beta_schedule: log_sigma
  parameterization: precond
  level_channel: true
  unet_rosinality_config:
    {in_channel: 3, channel: 32, channel_multiplier: [1], n_res_blocks: 1, attn_strides: [], dropout: 0.2, fold: 2}
data: {paths: [PATIENTS], noise: {variance: [0.0064, 0.09]}, val_patches: 4, workers: 2}
training:
  {max_tsteps: 16, batch_size: 2, lr_decay: cosine, warmup: 2, start_fraction: 0.5, val_every: 4, checkpoint_every: 2,
   log_every: 2, picture_every: 0}
sampling: {estimate: mean, steps: 4, clip: false}
"""
PROTOCOL = """
{name: small, version: 1, about: for kills, modality: CT, window: {type: fixed, low: -1000, high: 1000},
 scale: [-1, 1], metrics: [psnr, ssim_uniform]}
"""
STUDY = """
name: small
protocols: [PROTOCOL]
data: {paths: [OTHERS], val_patients: [sub-21]}
tuning: {slices: 1, crop: 32}
levels: [{type: gaussian, variance: 0.02}, {type: gaussian, variance: 0.2}]
methods:
  - {type: noisy}
  - {type: gaussian_filter}
  - {type: model, name: trained, config: MODEL, overrides: [max_tsteps=6, workers=0]}
"""


SPLIT = "test: [sub-00, sub-01, sub-02, 1CT1, 4MR1]"
"""Of a store without a plan, for which the network would be timed longer than all else takes."""


@dataclass(frozen=True)
class Command:
    """A command in a place of its own. arguments: those of the command, the same after a kill as before it.

    lock: the file by which one process holds the place. content: what has to be equal in every finished place, by name;
    raises where something is missing. begin: makes the place before the command. finished: arguments that it needs
    where it had ended its work when it was killed. differs: lines on what is there and does not belong together.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    lock: Callable[[Path], Path]
    content: Callable[[Path], dict[str, str]]
    begin: Callable[[Path], object] = lambda place: place.mkdir(parents=True)
    finished: tuple[str, ...] = ()
    differs: Callable[[Path, dict[str, str]], list[str]] = lambda place, reference: []


@dataclass
class Ended:
    """How a command ended: exit code (minus the signal's number), what it printed to stderr, what is wrong.

    orphans: seconds until the last of its processes had ended too.
    """

    code: int
    errors: str
    wrong: list[str]
    orphans: float = 0.0


@dataclass
class Kill:
    """What a kill did. seen: how far the command was; wrong: what did not hold; orphans: as in ``Ended``."""

    seen: str
    wrong: list[str]
    orphans: float


def commands(folder: Path) -> list[Command]:
    """Make the inputs of all commands in ``folder``, a trained model among them, and return the commands."""
    patients = _scans(folder / "patients", range(3))
    others = _scans(folder / "others", range(20, 22))
    series = _series(folder / "series")
    texts = {"PATIENTS": str(patients), "OTHERS": str(others), "PROTOCOL": str(folder / "protocol.yaml")}
    model, study, teacher = folder / "model.yaml", folder / "study.yaml", folder / "teacher" / "run"
    split = folder / "split.yaml"
    texts["MODEL"] = str(model)
    for path, text in ((model, MODEL), (folder / "protocol.yaml", PROTOCOL), (study, STUDY), (split, SPLIT)):
        path.write_text(re.sub("|".join(texts), lambda found: texts[found[0]], text))
    training = Command(
        "train",
        lambda place: ["train", model, "--out", place / "run", "--resume", "--no-progress"],
        lambda place: place / "run" / LOCK,
        lambda place: _of_run(place / "run"),
    )
    ended = end(start(training, folder / "teacher"), folder / "teacher")
    if ended.code:
        raise RuntimeError(ended.errors)
    student = ("--steps", 8, "--teacher-steps", 3, "checkpoint_every=2", "val_every=4")
    sampling = ("--estimate", "mean-of-k", "--samples", 2, "--steps", 3)
    return [
        training,
        Command(
            "prepare",
            lambda place: ["prepare", patients, series, place / "run", "--split", split, "--workers", 2],
            lambda place: place / "run" / LOCK,
            lambda place: _of_files(place / "run", r"manifest\.json|scans/.*"),
        ),
        Command(
            "denoise",
            lambda place: [
                *("denoise", patients / "sub-01.nii.gz", place / "out.nii.gz", "--modality", "CT", *sampling),
                *("--uncertainty", place / "map.nii.gz"),
            ],
            lambda place: place / f".out.nii.gz.{LOCK}",
            _of_restored,
            finished=("--force",),
            differs=_restored_otherwise,
        ),
        Command(
            "denoise many",
            lambda place: ["denoise", series, place / "out"],
            lambda place: place / "out" / f".archive.csv.{LOCK}",
            lambda place: _of_restored(place / "out"),
            differs=lambda place, reference: _restored_otherwise(place / "out", reference),
        ),
        Command(
            "benchmark",
            lambda place: ["benchmark", study, "--out", place / "run"],
            lambda place: place / "run" / LOCK,
            _of_study,
        ),
        Command(
            "distill",
            lambda place: ["distill", teacher, *student, "--out", place / "run", "--resume", "--no-progress"],
            lambda place: place / "run" / LOCK,
            lambda place: _of_run(place / "run"),
        ),
        Command(
            "calibrate",
            lambda place: ["calibrate", place / "run", "--steps", 2, "--samples", 2, "--patches", 8],
            lambda place: place / "run" / "checkpoints" / f".best.ckpt.{LOCK}",
            lambda place: _of_checkpoint(place / "run" / "checkpoints" / "best.ckpt", "cdm4mi"),
            begin=lambda place: shutil.copytree(teacher, place / "run"),
        ),
    ]


def start(command: Command, place: Path, *more: str) -> BaseProcess:
    """Begin a command in a process, and a session, of its own."""
    if not place.exists():
        command.begin(place)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    arguments = [str(word) for word in (*command.arguments(place), *more)]
    process = context.Process(target=_run, args=(arguments, f"{place}.txt"))
    process.start()
    return process


def _run(arguments: list[str], errors: str) -> None:
    os.setsid()
    with open(errors, "w") as file, open(os.devnull, "w") as nothing:
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # workers of the command start as everywhere
    sys.modules["__main__"] = types.ModuleType("__main__")  # and do not import ours
    sys.argv = ["cdm4mi", *arguments]
    run()


def end(process: BaseProcess, place: Path) -> Ended:
    """Wait for the end of a command, and of every process that it started."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return Ended(0, "", [f"had not ended after {SECONDS} s"])
    wrong = []
    ended = time.monotonic()
    while (left := list(_in_session(process.pid))) and time.monotonic() < ended + SECONDS_OF_ORPHANS:
        time.sleep(0.05)
    orphans = time.monotonic() - ended
    if left:
        wrong.append(f"left {len(left)} process(es) behind")
        for orphan in left:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
    errors = Path(f"{place}.txt").read_text() if Path(f"{place}.txt").exists() else ""
    if "Traceback" in errors and process.exitcode != -signal.SIGKILL:  # whose workers may say that they lost it
        wrong.append(f"ended in a traceback: {errors.strip().splitlines()[-1]}")
    return Ended(process.exitcode, errors, wrong, orphans)


def _in_session(number: int | None) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def undisturbed(command: Command, place: Path) -> tuple[dict[str, str], float]:
    """(content, seconds) of a command that nobody kills."""
    began = time.monotonic()
    process = start(command, place)
    process.join(SECONDS)
    seconds = time.monotonic() - began
    ended = end(process, place)
    if ended.code or ended.wrong:
        raise RuntimeError(f"{command.name}: {ended.wrong} {ended.errors}")
    return command.content(place), seconds


def killed(command: Command, place: Path, reference: dict[str, str], seconds: float, by: signal.Signals) -> Kill | None:
    """Kill a command after so many seconds, see what it left, and call it again. None where it had ended before.

    reference: the content of an undisturbed run.
    """
    process = start(command, place)
    process.join(seconds)
    if process.exitcode is not None:
        return None
    assert process.pid is not None
    os.kill(process.pid, by)
    ended = end(process, place)
    if by == signal.SIGKILL and ended.code == 0:  # just as it was killed
        return None
    wrong = ended.wrong
    found = _content(command, place)
    done = found == reference
    seen = "finished" if done else "under way" if visible(place) else "nothing yet"
    expected = {-signal.SIGKILL} if by == signal.SIGKILL else {143, *([0] if done else [])}
    if ended.code not in expected:
        wrong.append(f"ended with {ended.code}: {ended.errors[-300:]}")
    if by == signal.SIGTERM:
        wrong += [f"SIGTERM left {name}" for name in hidden(place)]
        if ended.code == 143 and not ended.errors.endswith("stopped (SIGTERM)\n"):
            wrong.append(f"said {ended.errors!r}")
    wrong += [f"is not whole: {name}" for name in damaged(place)]
    wrong += command.differs(place, reference)
    again = end(start(command, place, *(command.finished if done else ())), place)
    wrong += [f"called again: {what}" for what in again.wrong]
    if again.code:
        wrong.append(f"called again: ended with {again.code}: {again.errors[-300:]}")
    wrong += [f"called again: left {name}" for name in hidden(place)]
    wrong += [f"called again: is not whole: {name}" for name in damaged(place)]
    wrong += [f"called again: {what}" for what in differences(_content(command, place), reference)]
    return Kill(seen, wrong, ended.orphans)


def two_at_once(command: Command, place: Path) -> tuple[dict[str, str], list[str]]:
    """Begin a command where another process is at work, which is halted meanwhile: (content at the end, what is wrong).

    The first has to go through, the second is refused in one line that names the first.
    """
    first, wrong = start(command, place), []
    until, lock = time.monotonic() + SECONDS, command.lock(place)
    while not (lock.exists() and lock.read_text()):
        if first.exitcode is not None or time.monotonic() > until:
            return {}, [f"never held {lock.name}", *end(first, place).wrong]
        time.sleep(0.002)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    before = {name: (place / name).read_bytes() for name in visible(place)}
    shutil.move(f"{place}.txt", f"{place}-first.txt")
    second = end(start(command, place), place)
    who = rf"in use by process {first.pid} on {re.escape(platform.node())} \({command.name.split()[0]}, since "
    if second.code != 2 or not re.fullmatch(rf"error: .*{who}.*\n", second.errors):
        wrong.append(f"the second ended with {second.code}: {second.errors[-300:]}")
    if before != {name: (place / name).read_bytes() for name in visible(place)}:
        wrong.append("the second changed what was there")
    os.kill(first.pid, signal.SIGCONT)
    shutil.move(f"{place}-first.txt", f"{place}.txt")
    ended = end(first, place)
    wrong += [*second.wrong, *ended.wrong]
    if ended.code:
        wrong.append(f"the first ended with {ended.code}: {ended.errors[-300:]}")
    return _content(command, place), wrong + [f"left {name}" for name in hidden(place)]


def _content(command: Command, place: Path) -> dict[str, str]:
    """The content of a place; nothing where it is not finished."""
    try:
        return command.content(place)
    except (OSError, KeyError):
        return {}


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What differs between two contents, a line each."""
    lines = [f"{name} differs" for name in expected if found.get(name) != expected[name]]
    return lines + [f"{name} is new" for name in found if name not in expected]


def hidden(place: Path) -> list[str]:
    """Temporary files and locks in a place."""
    found = (path.relative_to(place) for path in place.rglob("*"))
    return sorted(str(path) for path in found if path.name.startswith(TEMPORARY) or path.name.endswith(LOCK))


def visible(place: Path) -> list[str]:
    """Every file that has its final name; not the logs, nor what lies in a temporary folder."""
    found = (path.relative_to(place) for path in place.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in found
        if not path.name.endswith(LOCK) and not any(part in LOGS or part.startswith(TEMPORARY) for part in path.parts)
    )


def damaged(place: Path) -> list[str]:
    """The files with a final name that do not open, or are not read to their end."""
    return [name for name in visible(place) if not _opens(place / name)]


def _opens(path: Path) -> bool:
    try:
        if path.suffix == ".ckpt":
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None and bool(torch.load(path, weights_only=True))
        if path.suffix == ".h5":
            return read_record(path) is not None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return all(arrays[name] is not None for name in arrays)
        reader = {
            ".json": lambda: json.loads(path.read_text()),
            ".yaml": lambda: yaml.safe_load(path.read_text()),
            ".csv": lambda: list(csv.reader(path.read_text().splitlines(), strict=True)),
            ".gz": lambda: nib.load(path).get_fdata(),
            ".dcm": lambda: pydicom.dcmread(path).pixel_array,
            ".png": lambda: Image.open(path).load(),
            ".html": lambda: path.read_text().rstrip().index("</html>"),
            ".tex": path.read_text,
        }[path.suffix]
        reader()
    except KeyError:
        raise
    except Exception:
        return False
    return True


def _digest(value: Any) -> str:
    """A hash of nested plain data with tensors and arrays, exact to the bit."""
    total = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, dict):
            for key, part in item.items():
                total.update(repr(key).encode())
                add(part)
        elif isinstance(item, list | tuple):
            total.update(f"{len(item)} items".encode())
            for part in item:
                add(part)
        elif isinstance(item, torch.Tensor | np.ndarray):
            array = np.ascontiguousarray(item)
            total.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            total.update(item if isinstance(item, bytes) else repr(item).encode())

    add(value)
    return total.hexdigest()


def _of_checkpoint(path: Path, *more: str) -> dict[str, str]:
    try:
        held = torch.load(path, weights_only=True)
    except RuntimeError as error:
        raise OSError(f"{path.name} cannot be read") from error
    return {f"{path.stem}: {part}": _digest(held[part]) for part in (*PARTS, *more)}


def _of_run(folder: Path) -> dict[str, str]:
    last, best = (_of_checkpoint(folder / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt"))
    return last | best


def _of_files(folder: Path, pattern: str) -> dict[str, str]:
    if not (folder / "manifest.json").exists():
        raise FileNotFoundError
    return {name: _digest((folder / name).read_bytes()) for name in visible(folder) if re.fullmatch(pattern, name)}


def _of_study(place: Path) -> dict[str, str]:
    folder = place / "run"
    scores = {path.name: _digest(path.read_bytes()) for path in sorted((folder / "scores").iterdir())}
    record = _without(json.loads((folder / "study.json").read_text()))
    (folder / "report.html").stat()
    return {**scores, "study.json": _digest(record)}


def _of_restored(folder: Path) -> dict[str, str]:
    """Voxels and record of every restored scan in a folder."""
    found = {}
    for name in visible(folder):
        if name.endswith(".cdm4mi.json"):
            found[name] = _digest(_without(json.loads((folder / name).read_text())))
            for scan in (folder / name.removesuffix(".cdm4mi.json"), *folder.glob("map.nii.gz")):
                volume = io.read(scan)
                found[str(scan.relative_to(folder))] = _digest([volume.array, volume.affine])
    return found


def _restored_otherwise(folder: Path, reference: dict[str, str]) -> list[str]:
    """Outputs that are there without their record, or are not those of an undisturbed run."""
    wrong = []
    for name in reference:
        if name.endswith(".json") or not (folder / name).exists():
            continue
        volume = io.read(folder / name)
        if _digest([volume.array, volume.affine]) != reference[name]:
            wrong.append(f"{name} differs")
        record = f"{name}.cdm4mi.json"
        if record in reference and not (folder / record).exists():
            wrong.append(f"{name} has no record")
    return wrong


def _without(value: Any) -> Any:
    """A record without what is of this run alone."""
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in OF_THIS_RUN}
    return [_without(part) for part in value] if isinstance(value, list) else value


def _scans(folder: Path, people: range) -> Path:
    """A folder of CT phantoms of three slices, 64 x 64 pixels."""
    folder.mkdir(parents=True)
    for person in people:
        slices = np.stack([phantom("CT", 50 * person + k, 64) for k in range(3)])
        nib.save(nib.Nifti1Image(slices.T, np.diag([0.8, 0.7, 2.5, 1.0])), folder / f"sub-{person:02d}.nii.gz")
    return folder


def _series(folder: Path) -> Path:
    """Two DICOM series of one slice."""
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (folder / name).mkdir(parents=True)
        shutil.copy(get_testdata_file(name, download=False), folder / name)
    return folder


def moments(seconds: float, count: int, seed: int) -> list[float]:
    """``count`` moments spread evenly over so many seconds, one drawn in each part, in random order."""
    rng = np.random.default_rng(seed)
    drawn = (np.arange(count) + rng.random(count)) / count * seconds
    return [float(moment) for moment in rng.permutation(drawn)]
