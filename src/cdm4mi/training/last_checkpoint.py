"""The checkpoint that a stopped run goes on from: written between steps only, and at Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cdm4mi.errors import Terminated

log = logging.getLogger("cdm4mi.training")


class LastCheckpoint(Checkpoint):
    """Saves ``path`` every ``every`` optimizer steps, never between the micro-batches of one.

    A step that a validation follows is saved after it, so that a run killed in the validation does it again. Comes
    after the callback of the best checkpoint, whose state it saves.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._seen = 0
        self._signal: int | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Finish the step, save it and end the run at the first Ctrl-C or SIGTERM, and just end it at a second.

        The run ends by KeyboardInterrupt or ``Terminated``.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except SystemExit:
            if self._signal is not None:  # what Lightning makes of either
                raise self._ending() from None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, *_: Any) -> None:
        if self._signal is not None:
            raise self._ending()
        self._signal = number
        again = "press Ctrl-C again" if number == signal.SIGINT else "a second SIGTERM is needed"
        log.warning("stopping after this step; %s to stop at once", again)

    def _ending(self) -> BaseException:
        return Terminated() if self._signal == signal.SIGTERM else KeyboardInterrupt()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen = trainer.global_step
        if signal.getsignal(signal.SIGINT) == self._stop:  # Lightning's handler ends a run between micro-batches
            signal.signal(signal.SIGTERM, self._stop)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        every = trainer.val_check_batch
        validates = every is not None and (trainer.fit_loop.total_batch_idx + 1) % every == 0
        if not validates:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if self._signal is not None or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)
        if self._signal is not None:
            log.warning("stopped: %s holds step %d, and `resume` goes on from it", self.path, trainer.global_step)
            raise self._ending()
