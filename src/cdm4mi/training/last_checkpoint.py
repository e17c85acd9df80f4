"""The checkpoint that a stopped run goes on from: written between steps only, and at Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cdm4mi.errors import Terminated, UserError
from cdm4mi.files import replacing_file
from cdm4mi.models.ckpt_file import read_ckpt
from cdm4mi.models.parts import check_parts
from cdm4mi.training.processes import Agreement

log = logging.getLogger("cdm4mi.training")

LAST, PREVIOUS, BEST, DAMAGED = "last.ckpt", "previous.ckpt", "best.ckpt", "damaged.ckpt"
_PROGRESS = {"total": dict, "current": dict}
_RESUMED: dict[str, Any] = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "loops": {"fit_loop": {"epoch_progress": _PROGRESS, "epoch_loop.batch_progress": _PROGRESS}},
    "callbacks": dict,
    "optimizer_states": [{"state": dict, "param_groups": [{"params": list}]}],
    "lr_schedulers": [{"last_epoch": int, "base_lrs": list, "lr_lambdas": list}],
    "PairData": {"step": int, "pairs": int},
    "cdm4mi": dict,
}
"""What a checkpoint must hold for a training to go on from it, as ``models.parts`` has it: Lightning's, and ours."""
_BEST = {"dirpath": str, "best_model_path": str, "kth_best_model_path": str, "best_k_models": dict}
SECOND = 1.0
"""Seconds from a signal in which another is the same stop: of a terminal, and of torchrun that passes it on."""


def newest_checkpoint(folder: Path) -> Path | None:
    """The last.ckpt of a run's ``checkpoints`` folder, which the run goes on from; None where it has no checkpoint yet.

    Where that file is gone, or no training can go on from it, the newest that one can go on from takes its place, and a
    warning names both. Raises UserError where there are files and none is such.
    """
    last, problem = folder / LAST, ""
    for file in (last, folder / PREVIOUS, folder / BEST):
        if not file.exists():
            continue
        try:
            step = _step_of(file)
        except UserError as error:
            problem = problem or str(error)
            continue
        if file == last:
            return last
        what = f"{problem} (kept as {DAMAGED})" if last.exists() else f"{last}: is missing"
        with replacing_file(last, keep=folder / DAMAGED) as temporary:
            shutil.copyfile(file, temporary)
        log.warning("%s; going on from %s, step %d", what, file.name, step)
        return last
    if problem:
        raise UserError(f"{problem}; no other of the run is whole, and without {folder} it begins anew")
    return None


def _step_of(file: Path) -> int:
    """The step of a checkpoint. Raises UserError where no training can go on from it."""
    checkpoint = read_ckpt(file)
    check_parts(file, "", checkpoint, _RESUMED)
    for name, state in checkpoint["callbacks"].items():
        check_parts(file, f"callbacks: {name.partition('{')[0]}", state, _BEST if "dirpath" in state else dict)
    step: int = checkpoint["global_step"]
    return step


class LastCheckpoint(Checkpoint):
    """Saves ``path`` every ``every`` optimizer steps, never between the micro-batches of one.

    A step that a validation follows is saved after it, so that a run killed in the validation does it again. Comes
    after the callback of the best checkpoint, whose state it saves.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._seen = 0
        self._signal = 0
        self._since = 0.0

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
            if self._signal:  # what Lightning makes of either
                raise self._ending() from None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, *_: Any) -> None:
        if self._signal:
            if time.monotonic() - self._since > SECOND:
                raise self._ending()
            return
        self._signal, self._since = number, time.monotonic()
        again = "press Ctrl-C again" if number == signal.SIGINT else "a second SIGTERM is needed"
        log.warning("stopping after this step; %s to stop at once", again)

    def _ending(self) -> BaseException:
        return Terminated() if self._signal == signal.SIGTERM else KeyboardInterrupt()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._agreement = Agreement()
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
        self._signal = self._agreement.greatest(self._signal)  # a scheduler may have sent it to one process only
        if self._signal or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)
        if self._signal:
            log.warning("stopped: %s holds step %d, and `resume` goes on from it", self.path, trainer.global_step)
            raise self._ending()
