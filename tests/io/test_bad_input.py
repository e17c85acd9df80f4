"""Any file at all: it works, or ends with one clear line; no traceback, no hang, no memory for what is not there."""

from __future__ import annotations

import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.io.formats import FORMATS
from experiments.bad_files import damaged, good_files, shipped_files, small_model

SECONDS, BYTES = 10, 2 * 2**30
"""Seconds of the processor, so that what else a machine does is not counted."""
CASES, PARTS = 2000, 4


def inspect_it(path: Path, out: Path) -> None:
    """What ``cdm4mi inspect`` does."""
    io.describe(path)


def read_and_write(path: Path, out: Path) -> None:
    """What every command that writes does around the network: all scans of the path, each written again unchanged."""
    for info, volume in io.read_all(path):
        ending = {"dicom": ".dcm", "nifti": ".nii", "mha": ".mha", "tiff": ".tif", "hdf5": ".h5"}
        target = out / f"{info.number}{ending.get(info.kind, '.' + info.kind)}"
        try:
            io.write(volume, target)
        except UserError:
            assert not any(out.iterdir()), "something was left behind by a refused write"
            raise
        target.unlink(missing_ok=True)


def denoise_it(path: Path, out: Path) -> None:
    """What ``cdm4mi denoise`` does with many scans; whatever is written is whole, and is taken away again."""
    folder = out / "restored"
    try:
        for info in io.list_scans(path).scans:
            target = folder / f"{info.number}{FORMATS[info.kind].endings[0] if info.kind in FORMATS else ''}"
            try:
                denoise_file(path, target, small_model(), series=info.number)
            except UserError as error:
                assert "\n" not in str(error)
    finally:
        for record in folder.glob("*.cdm4mi.json"):
            assert [p for p in folder.glob(record.name.split(".")[0] + "*") if p != record], "a record without a scan"
        assert not list(folder.glob(".*")), "something half-written was left behind"
        shutil.rmtree(folder, ignore_errors=True)


# Each takes (input, empty output folder) and may raise UserError only. Commands that read scans are added here.
PATHS: dict[str, Callable[[Path, Path], None]] = {
    "inspect": inspect_it,
    "read and write": read_and_write,
    "denoise": denoise_it,
}


def survives(command, path, out):
    """Run a command on a file as a user would; True where it worked."""
    began = time.process_time()
    try:
        command(path, out)
        worked = True
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        worked = False
    assert not any(out.iterdir())
    assert time.process_time() - began < SECONDS
    return worked


@pytest.mark.parametrize("name", PATHS)
def test_shipped_files(name, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    worked = sum(survives(PATHS[name], path, out) for path in shipped_files())
    assert worked > 50


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files(part, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    good = good_files(tmp_path / "good")
    for path in good:
        for name, command in PATHS.items():
            assert survives(command, path, out), (path.name, name)
    contents = [path.read_bytes() for path in good]
    for number, (which, content) in enumerate(damaged(contents, CASES // PARTS, seed=part)):
        # The last case is kept in the folder of the test when it fails.
        case = tmp_path / f"case{''.join(good[which].suffixes)}"
        case.write_bytes(content)
        command = list(PATHS.values())[number % len(PATHS)]
        survives(command, case, out)
        case.unlink()


def test_memory_is_not_taken_for_what_a_header_claims(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    good = good_files(tmp_path / "good")
    tracemalloc.start()
    try:
        for which, content in damaged([path.read_bytes() for path in good], 60, seed=99):
            case = tmp_path / f"case{''.join(good[which].suffixes)}"
            case.write_bytes(content)
            survives(PATHS["inspect"], case, out)
        assert tracemalloc.get_traced_memory()[1] < BYTES / 8
    finally:
        tracemalloc.stop()
