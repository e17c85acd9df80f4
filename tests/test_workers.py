"""Worker processes end with a parent that was killed, however they were started."""

import multiprocessing
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, os, sys, time
from cdm4mi.workers import end_with_parent

def work():
    end_with_parent()
    os.write(1, b"at work\\n")  # in one piece: two processes write to one pipe
    time.sleep(600)

if __name__ == "__main__":
    workers = [multiprocessing.get_context(sys.argv[1]).Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    time.sleep(600)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_end_with_a_killed_parent(method, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, tmp_path / "script.py", method], stdout=subprocess.PIPE)
    assert [process.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
    process.kill()
    process.communicate(timeout=30)  # its output ends when the last process that holds it has ended
