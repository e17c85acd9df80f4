"""Bad input at full size: every shipped test file and thousands of damaged ones through ``inspect`` and ``denoise``.

Run: python -m experiments.bad_input [--cases 2400] [--seed 1]. Every file of pydicom's and nibabel's own test sets and
``--cases`` damaged copies of good files of every format go through both commands as a user calls them, in this process:
a case passes where the command works, or ends with exit code 2 and one line on stderr, and then leaves nothing behind
(neither beside the output nor in the temporary folder). Counts, the slowest case and the most memory are printed; exit
code 1 where a case fails. The network is small and untrained: what it makes of a file does not matter here.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io as streams
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import nibabel
import pydicom
import torch

from cdm4mi.cli.main import run
from cdm4mi.models import checkpoint
from experiments.bad_files import damaged, good_files, shipped_files, small_model

SECONDS, BYTES = 10, 2 * 2**30


def call(*arguments: str) -> tuple[int | str, str]:
    """Exit code (or what was raised, in words) and stderr of one command."""
    said, sys.argv = streams.StringIO(), ["cdm4mi", *arguments]
    try:
        with contextlib.redirect_stdout(streams.StringIO()), contextlib.redirect_stderr(said):
            run()
    except SystemExit as end:
        return end.code or 0, said.getvalue()
    except BaseException:
        return traceback.format_exc(), said.getvalue()
    return "did not end", said.getvalue()


def peak_memory() -> int:
    """Most resident bytes of this process since the last call (Linux)."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


class Tally:
    """What became of the cases of one kind."""

    def __init__(self) -> None:
        self.counts: collections.Counter = collections.Counter()
        self.seconds, self.bytes = 0.0, 0
        self.failures: list[str] = []

    def run(self, case: Path, name: str, out: Path, temporary: Path) -> None:
        for command in ("inspect", "denoise"):
            target = [str(out / "restored"), "--workers", "1"] if command == "denoise" else []
            peak_memory()
            began = time.monotonic()
            code, said = call(command, str(case), *target)
            seconds, peak = time.monotonic() - began, peak_memory()
            self.seconds, self.bytes = max(self.seconds, seconds), max(self.bytes, peak)
            self.counts[f"{command} works" if code == 0 else f"{command} refuses"] += 1
            wrong = self._wrong(code, said, seconds, peak, out, temporary)
            if wrong:
                self.failures.append(f"{name}, {command}: {wrong}")
            shutil.rmtree(out / "restored", ignore_errors=True)

    def _wrong(self, code: int | str, said: str, seconds: float, peak: int, out: Path, temporary: Path) -> str:
        if code not in (0, 1, 2):  # 1: of an archive whose scans cannot be restored, all or some
            return f"ended with {code}"
        if code and not re.fullmatch(r"(not restored: .+\n)*error: .+\n", said):
            return f"stderr is {said!r}, expected one line"
        if seconds > SECONDS:
            return f"took {seconds:.1f} s"
        if peak > BYTES:
            return f"took {peak / 2**30:.1f} GB"
        left = [path for path in sorted((out / "restored").rglob("*")) if path.is_file() and path.suffix != ".csv"]
        records = {path for path in left if path.name.endswith(".cdm4mi.json")}
        recorded = {path.with_name(path.name.removesuffix(".cdm4mi.json")) for path in records}
        scans = [path for path in left if path not in records]
        bare = [path for path in scans if path not in recorded and path.parent not in recorded]
        if bare or any(not path.exists() for path in recorded) or any(path.name.startswith(".") for path in left):
            return f"left {[path.name for path in left]}"
        if code == 2 and scans:
            return f"left {[path.name for path in scans]}"
        if any(temporary.iterdir()) or [p.name for p in out.iterdir() if p.name != "restored"]:
            return "left temporary files"
        return ""

    def lines(self, name: str) -> list[str]:
        counted = ", ".join(f"{key} {count}" for key, count in sorted(self.counts.items()))
        return [
            f"{name}: {counted}; slowest {self.seconds:.1f} s (bound {SECONDS}), "
            f"most memory {self.bytes / 2**30:.2f} GB (bound 2)",
            *(f"  FAILED {failure}" for failure in self.failures),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    checkpoint.load_model = lambda *_: small_model()
    torch.set_num_threads(1)
    versions = f"pydicom {pydicom.__version__}, nibabel {nibabel.__version__}, torch {torch.__version__}"
    print(f"{versions}, Python {platform.python_version()}")
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out, temporary, cases = folder / "out", folder / "temporary", folder / "cases"
        for path in (out, temporary, cases):
            path.mkdir()
        good = good_files(folder / "good")
        contents = [path.read_bytes() for path in good]
        tempfile.tempdir = str(temporary)
        shipped = shipped_files()
        tally = tallies.setdefault(f"{len(shipped)} shipped files", Tally())
        for path in shipped:
            tally.run(path, path.name, out, temporary)
        damage = f"{arguments.cases} damaged copies of {len(good)} good files (seed {arguments.seed})"
        tally = tallies.setdefault(damage, Tally())
        for number, (which, content) in enumerate(damaged(contents, arguments.cases, arguments.seed)):
            case = cases / f"case{''.join(good[which].suffixes)}"
            case.write_bytes(content)
            failed = len(tally.failures)
            tally.run(case, f"case {number} ({good[which].name})", out, temporary)
            if len(tally.failures) > failed:
                shutil.copyfile(case, Path(os.getcwd()) / f"failed-{number}{''.join(good[which].suffixes)}")
            case.unlink()
        tempfile.tempdir = None
    for kind, tally in tallies.items():
        print("\n".join(tally.lines(kind)))
    return int(any(tally.failures for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
