"""An archive over several processes, some of which are killed: every scan once, equal to the bit to what one gives."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.archive.find import find_archive
from cdm4mi.archive.restore import Job
from cdm4mi.archive.run import Spread, restore_archive
from cdm4mi.archive.series import Series
from cdm4mi.archive.spread import DEATHS, _gpus, _seeing
from cdm4mi.archive.table import Row, Table
from cdm4mi.errors import UserError

distributed = pytest.importorskip("distributed")
OF_THIS_RUN = ("seconds", "written")


@pytest.fixture
def forty(tmp_path, save_nifti):
    """An archive of 40 small scans, one of them cut short."""
    rng = np.random.default_rng(0)
    for k in range(40):
        save_nifti(tmp_path / "in" / f"{k % 5}" / f"scan-{k:02d}.nii", rng.normal(0, 300, (1, 16, 16)))
    cut = tmp_path / "in" / "3" / "scan-13.nii"
    cut.write_bytes(cut.read_bytes()[:500])
    return tmp_path / "in"


def lines(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def content(out):
    """Voxels and record of every output, by its path."""
    found = {}
    for path in sorted(out.rglob("*.cdm4mi.json")):
        scan = path.with_name(path.name.removesuffix(".cdm4mi.json"))
        record = json.loads(path.read_text())
        found[str(scan.relative_to(out))] = (
            io.read(scan).array.tobytes(),
            {name: value for name, value in record.items() if name not in OF_THIS_RUN},
        )
    return found


def test_workers_are_killed_half_way(forty, trained_run, tmp_path):
    outs = tmp_path / "alone", tmp_path / "two"
    jobs = [Job(out, trained_run, noise=300, modality="CT", seed=3, threads=1) for out in outs]
    archive = find_archive(forty, outs[0])
    assert len(archive.series) == 40
    assert restore_archive(archive, jobs[0]) == {"restored": 39, "failed": 1}
    pipe = tmp_path / "pipe"  # which a worker opens, and reads from until it is killed
    os.mkfifo(pipe)
    archive.series.insert(20, Series("pipe", "pipe", (pipe,), one_file=False))
    killed, ended = [], []

    def kill():
        while len(killed) < DEATHS:
            with pipe.open("wb"):  # as soon as one reads
                workers = distributed.default_client().run(os.getpid, on_error="ignore").values()
                opened = [pid for pid in workers if pipe in _files_of(pid)]
                for pid in opened:
                    os.kill(pid, signal.SIGKILL)
                killed.extend(opened)
            time.sleep(0.1)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert restore_archive(archive, jobs[1], Spread(workers=2), ended.append) == {"restored": 39, "failed": 2}
    killer.join()
    assert len(set(killed)) == DEATHS and os.getpid() not in killed
    assert sorted(row.input for row in ended) == sorted(one.source for one in archive.series)
    alone, two = map(content, outs)
    assert len(two) == 39 and alone == two
    table = lines(outs[1] / "archive.csv")
    assert [line["input"] for line in table] == sorted(one.source for one in archive.series)
    failed = {line["output"]: line["message"] for line in table if line["status"] == "failed"}
    assert list(failed) == ["3/scan-13.nii", "pipe"] and failed["pipe"].startswith("3 workers ended")
    assert all(line["slices"] == "1" and line["sigma"] == "300" for line in table if line["status"] == "restored")
    assert not list(outs[1].rglob(".*"))


def _files_of(pid):
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(link.readlink())
        except OSError:
            continue
    return found


def test_what_every_worker_would_refuse_ends_the_run(forty, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr("cdm4mi.archive.spread.ANSWERS_IN", 1)
    archive = find_archive(forty, tmp_path / "out")
    with pytest.raises(UserError, match=r"`scheduler`: found .*no Dask scheduler answers"):
        restore_archive(archive, Job(tmp_path / "out"), Spread(scheduler="tcp://127.0.0.1:1"))
    other = Job(tmp_path / "out", trained_run, version="0.0.0")
    with pytest.raises(UserError, match=r"version .* expected 0\.0\.0"):
        restore_archive(archive, other)


def test_each_worker_sees_one_of_several_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [_seeing(_gpus(), k)["CUDA_VISIBLE_DEVICES"] for k in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a")
    assert [_seeing(_gpus(), k)["CUDA_VISIBLE_DEVICES"] for k in range(2)] == ["5", "GPU-3a"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert _seeing(_gpus(), 1) == {}


def test_a_line_that_a_kill_cut_is_gone_and_the_others_stay(tmp_path):
    path = tmp_path / "out" / "archive.csv"
    path.parent.mkdir()
    table = Table(path)
    for name in ("b", "a\n,\"'"):
        table.add(row := Row(name, name, "restored", slices=3))
    with path.open("a") as file:
        file.write("c,c,rest")
    table = Table(path)
    table.add(row)
    table.tidy()
    assert [(line["input"], line["slices"]) for line in lines(path)] == [("a\\n,\"'", "3"), ("b", "3")]
    path.write_text("patient,diagnosis\n1,healthy\n")
    with pytest.raises(UserError, match="not a table of restored scans"):
        Table(path)
    assert path.read_text().startswith("patient")
