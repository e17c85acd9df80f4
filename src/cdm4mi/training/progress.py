"""A progress bar over the optimizer steps of a run, with losses, speed and the time left."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn


class StepProgress(ProgressBar):
    """Counts optimizer steps out of ``max_steps``: the data have no end, so Lightning's own bars know no time left."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def disable(self) -> None:
        self._close()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, TextColumn("left"), TimeLeftColumn(), TextColumn("{task.fields[losses]}"))
        self.bar.start()
        self.task = self.bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, losses="")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if self.bar is not None:
            shown = {"train/loss": "loss", "val/loss": "val"}
            losses = [f"{name} {float(v):.4g}" for k, name in shown.items() if (v := trainer.callback_metrics.get(k))]
            self.bar.update(self.task, completed=trainer.global_step, losses="  ".join(losses))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
