"""The checkpoint that a stopped run goes on from: written between steps only, and at Ctrl-C."""

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

log = logging.getLogger("cdm4mi.training")


class LastCheckpoint(Checkpoint):
    """Saves ``path`` every ``every`` optimizer steps, never between the micro-batches of one.

    A step that a validation follows is saved after it, so that a run killed in the validation does it again. Comes
    after the callback of the best checkpoint, whose state it saves.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._seen = 0
        self._interrupted = False

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Within the context the first Ctrl-C finishes the step, saves it and ends the run; a second just ends it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        except SystemExit:
            if self._interrupted:  # what Lightning makes of the interrupt
                raise KeyboardInterrupt from None
            raise
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        log.warning("stopping after this step; press Ctrl-C again to stop at once")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen = trainer.global_step

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
        if self._interrupted or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)
        if self._interrupted:
            raise KeyboardInterrupt
