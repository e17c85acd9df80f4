"""Training in two processes is the training in one with batches twice as large, and ends as one."""

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
import torch
import training_runs as runs
from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

from cdm4mi.config.load import save_config
from cdm4mi.config.schema import TrainingConfig
from cdm4mi.errors import UserError
from cdm4mi.training.processes import processes_of
from cdm4mi.training.run import train

LIMIT = 600
"""Seconds after which a test on a loaded machine gives up; a run of a few steps takes seconds."""
gloo = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()) or os.name == "nt",
    reason="processes on the CPU need torch with gloo, and POSIX signals",
)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return runs.patch_folder(tmp_path_factory.mktemp("patches"))


def config(patches, **training):
    """Without dropout, whose masks are drawn for a micro-batch as a whole; shares of validation that are not equal."""
    keys = {"log_every": 1, "val_every": 2, "checkpoint_every": 2, "lr_decay": "constant", "accelerator": "cpu"}
    unet = {"dropout": 0.0, "attn_strides": []}
    return runs.tiny_config(
        patches, model={"unet": unet}, data={"val_patches": 7}, **{**keys, "gradient_clip": 0.5, **training}
    )


def in_one(patches, out, steps, *, resume=False):
    train(config(patches, batch_size=4, max_tsteps=steps), out, resume=resume, progress=False)
    return out


def in_two(patches, out, steps, *, resume=False):
    """Train in two processes, which are forked and told what torchrun tells."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdm4mi.training.run", "training_runs"])
    settings = config(patches, batch_size=2, max_tsteps=steps)
    both = [context.Process(target=one_of_two, args=(rank, port, settings, out, resume)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(LIMIT)
    assert [process.exitcode for process in both] == [0, 0]
    return out


def one_of_two(rank, port, settings, out, resume):
    torch.set_num_threads(1)
    numbers = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    os.environ |= {name: str(n) for name, n in numbers.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "run", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank_zero_only.rank = rank  # which Lightning takes from the environment as it is imported
    train(settings, out, resume=resume, progress=False)


@contextmanager
def command_in_two(patches, out):
    """``cdm4mi train`` with devices=2 and without an end, as it runs, from its first checkpoint on."""
    file = out.with_suffix(".yaml")
    save_config(config(patches, devices=2, batch_size=2, max_tsteps=100_000), file)
    process = subprocess.Popen(
        [sys.executable, "-m", "cdm4mi", "train", str(file), "--out", str(out), "--no-progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        limit = time.monotonic() + LIMIT
        while not (out / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield process
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else ():
            one.kill()


def runs_on(process):
    """Whether a process has not ended; one that nobody asks for its exit code is a zombie."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def logged(out):
    """Column -> its values in order, in all versions of metrics.csv, but for figures of time and memory."""
    found = {}
    for file in sorted((out / "logs").rglob("metrics.csv")):
        with file.open() as opened:
            for row in csv.DictReader(opened):
                for column, value in row.items():
                    if value and column.startswith(("train/loss", "train/grad", "val/", "lr")):
                        found.setdefault(column, []).append(float(value))
    return found


@gloo
def test_two_processes_go_on_as_one_would_and_one_goes_on_from_them(patches, tmp_path):
    alone = in_one(patches, tmp_path / "alone", 6)
    out = in_one(patches, tmp_path / "run", 2)
    in_two(patches, out, 4, resume=True)
    assert runs.checkpoint(out)["PairData"] == {"step": 4, "pairs": 16}
    in_one(patches, out, 6, resume=True)
    assert len(list((out / "logs").iterdir())) == 3  # one for each run, not for each process
    values = logged(alone)
    assert len(values["train/loss"]) == 6
    assert logged(out) == {column: pytest.approx(values[column], rel=1e-3) for column in values}
    found, expected = runs.checkpoint(out), runs.checkpoint(alone)
    assert found["PairData"] == expected["PairData"]
    for key, weights in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][key], weights, rtol=1e-3, atol=1e-4)
    for key, weights in expected["ema"]["weights"].items():
        torch.testing.assert_close(found["ema"]["weights"][key], weights, rtol=1e-3, atol=1e-4)


@gloo
def test_sigterm_to_the_first_saves_and_ends_all(patches, tmp_path):
    out = tmp_path / "run"
    with command_in_two(patches, out) as process:
        others = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, errors
    assert errors.splitlines()[0] == "2 processes (cpu), 4 pairs a step in all"
    assert errors.splitlines()[-1] == "stopped (SIGTERM)"
    assert errors.count("stopped: ") == 1
    step = runs.checkpoint(out)["global_step"]
    assert f"last.ckpt holds step {step}, and " in errors
    assert not any(map(runs_on, others))
    assert not (out / "cdm4mi.lock").exists()


@gloo
@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_ends_all(rank, patches, tmp_path):
    out = tmp_path / "run"
    with command_in_two(patches, out) as process:
        (other,) = psutil.Process(process.pid).children()
        (other if rank else process).kill()
        _, errors = process.communicate(timeout=LIMIT)  # until both have closed their standard error
    assert process.returncode == (2 if rank else -signal.SIGKILL)
    dead = "process 2 of 2 has ended (SIGKILL)" if rank else "process 1 of 2 has ended"
    line = f"error: training: {dead}, expected all to go on to the end; --resume goes on"
    assert errors.splitlines()[1:] == [line]
    psutil.wait_procs([other], timeout=LIMIT)  # it may close its standard error before it ends
    assert not runs_on(other)


@pytest.mark.parametrize(
    ("keys", "environment", "found"),
    [
        ({"nodes": 2}, {}, "training.nodes: found 2 in a process that was started alone"),
        ({"accelerator": "mps"}, {}, "training.accelerator: found mps, which is not there, expected auto or cpu"),
        ({"devices": 3}, {"LOCAL_WORLD_SIZE": "2"}, "training.devices: found 3, but torchrun has started 2"),
        ({}, {"SLURM_STEP_NUM_TASKS": "8"}, "srun: found 8 tasks on 1 nodes, expected ntasks-per-node to say so"),
        ({"nodes": 3}, {"LOCAL_WORLD_SIZE": "2"}, "training.nodes: found 3, but torchrun has started 2"),
    ],
)
def test_processes_that_cannot_be_had_are_refused(keys, environment, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if "LOCAL_WORLD_SIZE" in environment:
        environment |= {"WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "run"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{found}"):
        processes_of(TrainingConfig(**keys))


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [
        ({}, 1, 1),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "run"}, 2, 2),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4"}, 4, 2),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, 1, 1),
    ],
)
def test_a_launcher_says_how_many_there_are(environment, devices, nodes, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes = processes_of(TrainingConfig(accelerator="cpu", devices="auto"))
    assert (processes.devices, processes.nodes) == (devices, nodes)
