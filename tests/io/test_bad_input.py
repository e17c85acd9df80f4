"""Any file at all: it works, or ends with one clear line; no traceback, no hang, no memory for what is not there."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from bad_input import PATHS, damaged, good_files, shipped_files

from cdm4mi.errors import UserError

SECONDS, BYTES = 10, 2 * 2**30
CASES, PARTS = 2000, 4


def survives(command, path, out):
    """Run a command on a file as a user would; True where it worked."""
    began = time.monotonic()
    try:
        command(path, out)
        worked = True
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        worked = False
    assert not any(out.iterdir())
    assert time.monotonic() - began < SECONDS
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
