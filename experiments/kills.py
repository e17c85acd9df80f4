"""Commands killed at random moments: what is left, and whether the same command goes on to the same result.

Run: python -m experiments.kills [COMMAND ...] [--kills 20] [--seed 1]. Each of train, prepare, denoise, benchmark,
distill and calibrate is begun ``--kills`` times on small inputs and killed, by SIGKILL and SIGTERM in turn, at moments
spread over the time of an undisturbed run; then it is called again. After a kill no file under its final name is cut,
every output has its record, and no process is left; SIGTERM ends with exit code 143 and leaves no temporary file. The
second call goes through without any cleaning, gives what an undisturbed run gives (weights, optimizer and steps of a
training to the bit, a store's files byte by byte, voxels and records of scans, tables of a study, a calibration), and
leaves no temporary file. Two processes at once in one place: one goes through, the other is refused in one line that
names the first. A table is printed; exit code 1 where anything fails.
"""

from __future__ import annotations

import argparse
import collections
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from experiments.kill_commands import Command, commands, differences, killed, moments, two_at_once, undisturbed


def tried(command: Command, folder: Path, count: int, seed: int) -> tuple[str, list[str]]:
    """Kill a command ``count`` times and begin it twice at once: (row of the table, failures)."""
    reference, seconds = undisturbed(command, folder / "undisturbed")
    seen: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    outlived = 0.0
    for number, moment in enumerate(moments(seconds, count, seed)):
        by = signal.SIGTERM if number % 2 else signal.SIGKILL
        place = folder / str(number)
        while (result := killed(command, place, reference, moment, by)) is None:
            shutil.rmtree(place)
            moment *= 0.9  # it was faster than the undisturbed run
        seen[result.seen] += 1
        outlived = max(outlived, result.orphans)
        failures += [f"{command.name}, {by.name} after {moment:.2f} s: {what}" for what in result.wrong]
        shutil.rmtree(place)
    content, twice = two_at_once(command, folder / "twice")
    twice += differences(content, reference)
    failures += [f"{command.name}, two at once: {what}" for what in twice]
    found = ", ".join(f"{what} {number}" for what, number in seen.most_common())
    second = "refused" if not twice else "FAILED"
    kills = f"{count} ({(count + 1) // 2} / {count // 2})"
    cells = (command.name, f"{seconds:.1f}", kills, found, f"{outlived:.1f}", len(failures), second)
    return f"| {' | '.join(map(str, cells))} |", failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help="which (default: all)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began, failures = time.monotonic(), []
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, seed {arguments.seed}\n")
    heads = ("command", "undisturbed (s)", "kills (SIGKILL / SIGTERM)", "at the kill", "workers outlived it (s)")
    print(f"| {' | '.join(heads)} | failures | two at once |\n|{'---|' * 7}")
    with tempfile.TemporaryDirectory() as name:
        for command in commands(Path(name)):
            if arguments.commands and command.name not in arguments.commands:
                continue
            row, found = tried(command, Path(name) / command.name.replace(" ", ""), arguments.kills, arguments.seed)
            print(row, flush=True)
            failures += found
    print(f"\n{time.monotonic() - began:.0f} s")
    for failure in failures:
        print(f"FAILED {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
