"""One scan after the other in this process, or spread by Dask over worker processes here or on other machines."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cdm4mi.archive.restore import Job, restore
from cdm4mi.archive.series import Series
from cdm4mi.archive.table import Row
from cdm4mi.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, Future

DEATHS = 3
"""Workers that may end in the middle of one scan: it is taken for what ends them then."""
ANSWERS_IN, STARTS_IN = 10, 60
"""Seconds within which a scheduler answers, and within which a local worker is there again after another has ended."""
_POLL = 0.5


def in_turn(job: Job, series: Sequence[Series]) -> Iterator[Row]:
    """The rows of some scans, restored in this process."""
    for one in series:
        yield restore(job, one)


def over_workers(client: Client, job: Job, series: Sequence[Series], patience: float | None = None) -> Iterator[Row]:
    """The rows of some scans in the order in which they end, restored by the workers of a Dask cluster.

    A worker has one scan at a time, so that it is clear in which one it ended. That scan goes to another worker, and
    after ``DEATHS`` of them it has failed. Workers may come and go. patience: seconds without any worker until a
    UserError is raised; None: as long as it takes. Raises UserError where the workers cannot do the work at all.
    """
    from distributed import wait

    waiting, deaths = deque(series), Counter[Series]()
    running: dict[Future, tuple[Series, str]] = {}
    seen = time.monotonic()
    try:
        while waiting or running:
            workers = client.nthreads()
            for future, (one, worker) in list(running.items()):
                if not future.done() and worker in workers:
                    continue
                del running[future]
                row = _row(future)
                if row is None:
                    future.cancel()
                    deaths[one] += 1
                    if deaths[one] < DEATHS:
                        waiting.append(one)
                        continue
                    row = Row(one.source, one.target, "failed", f"{DEATHS} workers ended while at it")
                yield row
            busy = {worker for _, worker in running.values()}
            for worker in [name for name in workers if name not in busy][: len(waiting)]:
                one = waiting.popleft()
                future = client.submit(restore, job, one, workers=[worker], allow_other_workers=False, pure=False)
                running[future] = one, worker
            seen = time.monotonic() if workers else seen
            if patience is not None and time.monotonic() - seen > patience:
                raise UserError("no worker could be started again, expected memory for one at least")
            if running:
                with suppress(TimeoutError):
                    wait(list(running), timeout=_POLL, return_when="FIRST_COMPLETED")
            else:
                time.sleep(_POLL)
    except (OSError, TimeoutError) as error:
        raise UserError(f"the Dask scheduler was lost ({type(error).__name__}); the same command goes on") from None
    finally:
        with suppress(Exception):
            client.cancel(list(running))


def _row(future: Future) -> Row | None:
    """What a worker made of its scan; None where it ended with it."""
    from distributed import KilledWorker

    if not future.done():
        return None
    try:
        row: Row = future.result(timeout=ANSWERS_IN)
        return row
    except UserError:
        raise
    except (KilledWorker, asyncio.CancelledError, OSError, TimeoutError):
        return None
    except Exception as error:
        raise UserError(
            f"a worker cannot do the work ({type(error).__name__}), expected cdm4mi as here where it runs"
        ) from None


@contextmanager
def cluster_at(address: str) -> Iterator[Client]:
    """A client of the running cluster whose scheduler has this address. Raises UserError where none answers."""
    from distributed import Client

    with _quiet():
        try:
            client = Client(address, timeout=ANSWERS_IN)
        except (OSError, ValueError, TypeError, TimeoutError):
            expected = "the address of a running one, such as tcp://node1:8786"
            raise UserError(
                field="scheduler", found=f"{address}, where no Dask scheduler answers", expected=expected
            ) from None
        try:
            yield client
        finally:
            client.close(timeout=ANSWERS_IN)


@contextmanager
def local_cluster(job: Job, workers: int) -> Iterator[tuple[Client, Job]]:
    """A client of so many worker processes on this machine, and the job with its share of the cores for each.

    Of several GPUs each worker sees one (CUDA_VISIBLE_DEVICES). The scheduler listens on 127.0.0.1 alone, to those who
    have a key that is made for it: others could run code in the user's name.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    gpus = _gpus() if job.device in ("auto", "cuda") else []
    threads = job.threads or max(1, torch.get_num_threads() // workers)
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.profile.enabled": False}
    with _quiet(), dask.config.set(settings), tempfile.TemporaryDirectory(prefix="cdm4mi-") as folder:
        security = Security.temporary()
        shared: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tls", "security": security, "dashboard": False}
        options = shared | {"nthreads": 1, "memory_limit": 0, "local_directory": folder}
        options["silence_logs"] = logging.CRITICAL
        cluster = SpecCluster(
            workers={k: {"cls": Nanny, "options": options | {"env": _seeing(gpus, k)}} for k in range(workers)},
            scheduler={"cls": Scheduler, "options": shared | {"port": 0}},
            security=security,
            silence_logs=logging.CRITICAL,
        )
        try:
            with Client(cluster) as client:
                yield client, replace(job, threads=threads)
        finally:
            cluster.sync(_end, list(cluster.workers.values()))
            cluster.close(timeout=ANSWERS_IN)


async def _end(nannies: Iterable[Any]) -> None:
    """End worker processes at once: what they have restored is on the disk."""
    await asyncio.gather(*(nanny.close(timeout=0.5) for nanny in nannies), return_exceptions=True)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name for name in named.split(",") if name][:count] or [str(k) for k in range(count)]


def _seeing(gpus: Sequence[str], worker: int) -> dict[str, str]:
    """The environment of a worker that sees one of several GPUs."""
    return {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if len(gpus) > 1 else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the terminal: what becomes of each scan is in the table."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
