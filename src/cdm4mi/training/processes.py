"""The processes that share a training: who starts them, what they agree on, and how the end of one ends all.

Under torchrun, or SLURM's srun, the processes are there; elsewhere the first starts the others with its own command
line. Each has one device, and Lightning's DDP averages their gradients.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

from cdm4mi.config.schema import TrainingConfig
from cdm4mi.errors import Terminated, UserError

TIMEOUT = timedelta(minutes=30)
"""So long one process waits for another, which may draw a picture or write a checkpoint meanwhile."""
GRACE = 20.0
"""Seconds after the end of one process in which another that waits for a GPU may notice; then it is ended."""
STOPPING = 5.0
"""Seconds in which the others end after a stop, at which all is saved already."""
_LAUNCHED = "CDM4MI_LAUNCHED_BY"
"""In the environment of a process that another of the run has started: the number of that process."""
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "Connection refus",
)


@dataclass(frozen=True)
class Processes:
    """Processes of a run: ``devices`` on each of ``nodes`` machines, on one kind of accelerator."""

    accelerator: str
    devices: int
    nodes: int
    environment: ClusterEnvironment

    @property
    def count(self) -> int:
        """How many there are in all."""
        return self.devices * self.nodes

    def trainer_arguments(self) -> dict[str, Any]:
        """What Lightning's Trainer is to know of them."""
        arguments: dict[str, Any] = {"accelerator": self.accelerator, "devices": self.devices, "num_nodes": self.nodes}
        if self.count > 1:
            arguments["strategy"] = DDPStrategy(timeout=TIMEOUT, cluster_environment=self.environment)
            arguments["sync_batchnorm"] = self.accelerator == "cuda"  # torch has none for the CPU
        return arguments


def is_first() -> bool:
    """Whether this process is the one that writes files and messages (rank 0, or the only one)."""
    return not getattr(rank_zero_only, "rank", 0)


def accelerator_of(training: TrainingConfig) -> str:
    """The kind of device that a training runs on: cpu, cuda or mps. Raises UserError for one that is not there."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if training.accelerator == "auto":
        return next(name for name, there in here.items() if there)
    if not here[training.accelerator]:
        expected = " or ".join(["auto", *(name for name, there in here.items() if there)])
        raise UserError(f"training.accelerator: found {training.accelerator}, which is not there, expected {expected}")
    return training.accelerator


def processes_of(training: TrainingConfig) -> Processes:
    """The processes of a training, as torchrun or SLURM started them, or as the configuration wants them.

    Raises UserError where the two disagree or the machine has too few devices.
    """
    accelerator = accelerator_of(training)
    started = _started_by_others()
    if started is not None:
        name, devices, nodes, environment = started
        for key, wanted, found in (("devices", training.devices, devices), ("nodes", training.nodes, nodes)):
            if wanted not in (1, "auto", found):
                raise UserError(
                    f"training.{key}: found {wanted}, but {name} has started {found}, expected that or none"
                )
    else:
        there = torch.cuda.device_count() if accelerator == "cuda" else 1
        devices, environment = there if training.devices == "auto" else training.devices, LightningEnvironment()
        if training.nodes > 1:
            raise UserError(
                f"training.nodes: found {training.nodes} in a process that was started alone, expected torchrun or "
                "srun to start them"
            )
        nodes = 1
    here = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator, devices)
    if devices > here:
        raise UserError(f"training.devices: found {devices}, expected at most the {here} that this machine has")
    return Processes(accelerator, devices, nodes, environment)


def _started_by_others() -> tuple[str, int, int, ClusterEnvironment] | None:
    """(launcher, processes on a node, nodes, environment) where a launcher has started more than one process."""
    if TorchElasticEnvironment.detect():
        count, devices = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if count > 1:
            return "torchrun", devices, count // devices, TorchElasticEnvironment()
    elif "SLURM_STEP_NUM_TASKS" in os.environ:  # in a job's step, which srun has started
        count, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
        if count > 1:
            devices = int(os.environ.get("SLURM_NTASKS_PER_NODE", 0))
            if devices * nodes != count:
                raise UserError(f"srun: found {count} tasks on {nodes} nodes, expected ntasks-per-node to say so")
            return "srun", devices, nodes, SLURMEnvironment(auto_requeue=False)
    return None


@contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """Start the other processes, unless a launcher has, and run the block in all; the end of one is the end of all.

    Raises UserError where another process has ended. Where one ends while another waits for it without being told, the
    latter is ended after ``GRACE`` seconds.
    """
    if processes.count == 1:
        yield
        return
    others = _Others(processes)
    try:
        yield
    except (KeyboardInterrupt, Terminated) as ending:
        others.wait(STOPPING)
        if not is_first():  # which says so
            code = 130 if isinstance(ending, KeyboardInterrupt) else 143
            raise SystemExit(0 if others.parent else code) from None
        raise
    except RuntimeError as error:
        if (message := others.lost(error)) is not None:
            raise UserError(message) from None
        raise
    else:
        others.wait()
        distributed.destroy_process_group()  # Lightning leaves it, and another run would take it for its own
    finally:
        others.end()


class _Others:
    """The other processes of a run: those that this one started, or the one that started it."""

    def __init__(self, processes: Processes) -> None:
        self.count = processes.count
        self.children: list[subprocess.Popen[bytes]] = []
        self.parent = int(os.environ.get(_LAUNCHED, 0))
        self._before: dict[str, str | None] = {}
        self._over = threading.Event()
        if isinstance(processes.environment, LightningEnvironment) and not self.parent:
            here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "LOCAL_RANK": "0", "NODE_RANK": "0"}
            self._before = {name: os.environ.get(name) for name in here}
            os.environ |= here
            for rank in range(1, self.count):
                environment = os.environ | {"LOCAL_RANK": str(rank), _LAUNCHED: str(os.getpid())}
                self.children.append(subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment))
        if self.children or self.parent:
            threading.Thread(target=self._watch, daemon=True).start()

    def found_dead(self) -> str | None:
        """Which process has ended, and how; None where all that this one sees are well."""
        for rank, child in enumerate(self.children, start=1):
            if code := child.poll():
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return f"process {rank + 1} of {self.count} has ended ({how})"
        if self.parent and os.getppid() != self.parent:
            return f"process 1 of {self.count} has ended"
        return None

    def lost(self, error: RuntimeError) -> str | None:
        """The message for an error that the end of another process made; None for another error."""
        until = time.monotonic() + 3
        while (found := self.found_dead()) is None and (self.children or self.parent) and time.monotonic() < until:
            time.sleep(0.05)
        if found is None and (isinstance(error, distributed.DistError) or any(part in str(error) for part in _LOST)):
            if self.parent:
                time.sleep(GRACE)  # the process that started this one says what happened, and ends it
            found = f"another of the {self.count} processes has ended or does not answer"
        if found is not None and int(os.environ["LOCAL_RANK"] if self.parent else 0) > 1:
            raise SystemExit(2)  # without the first, the second says it
        return None if found is None else f"training: {found}, expected all to go on to the end; `resume` goes on"

    def wait(self, seconds: float = GRACE) -> None:
        """Let the processes that were started end by themselves, for a while."""
        until = time.monotonic() + seconds
        while any(child.poll() is None for child in self.children) and time.monotonic() < until:
            time.sleep(0.02)

    def end(self) -> None:
        """End what was started, and give the environment back."""
        self._over.set()
        for child in self.children:
            child.kill()
            child.wait()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            if (found := self.found_dead()) is not None and not self._over.wait(GRACE):
                print(f"error: training: {found}; the run can be resumed", file=sys.stderr, flush=True)
                for child in self.children:
                    child.kill()
                os._exit(2)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Agreement:
    """A number that all processes of a run agree on, by way of the CPU, so that no GPU is waited for.

    Made, and asked, by all at the same moment.
    """

    def __init__(self) -> None:
        self.alone = not (distributed.is_available() and distributed.is_initialized())
        self.group = None if self.alone else distributed.new_group(backend="gloo", timeout=TIMEOUT)

    def greatest(self, number: int) -> int:
        """The greatest of the numbers that the processes bring."""
        if self.alone:
            return number
        found = torch.tensor(number)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.group)
        return int(found)


def quiet_unless_first() -> None:
    """Leave the messages of a run to its first process."""
    if not is_first():
        logging.getLogger("cdm4mi").setLevel(logging.ERROR)
