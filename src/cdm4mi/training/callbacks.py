"""What happens around a training step: averaging the weights, measuring speed and memory, drawing the denoising."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch

from cdm4mi.config.schema import Config
from cdm4mi.training.ema import EMAState
from cdm4mi.training.modules import DDPM
from cdm4mi.training.processes import Agreement


class EMACallback(L.Callback):
    """What a run does with its module's EMA: updated once an optimizer step, used in validation, saved and resumed.

    ``val/loss`` is that of the averaged weights; ``val/loss_raw``, computed here, that of the weights as trained.
    """

    def __init__(self) -> None:
        self._averaged = ExitStack()
        self._last_step = 0
        self._restored: EMAState | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: DDPM) -> None:
        if pl_module.ema is not None:
            pl_module.ema.restart()  # at the weights of a checkpoint that has no averages, if any
            if self._restored is not None:
                pl_module.ema.load_state_dict(self._restored)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: DDPM, *args: Any) -> None:
        if pl_module.ema is not None and trainer.global_step > self._last_step:
            pl_module.ema.update()
            self._last_step = trainer.global_step

    def on_validation_start(self, trainer: L.Trainer, pl_module: DDPM) -> None:
        if pl_module.ema is not None:
            self._averaged.enter_context(pl_module.ema.applied())

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: DDPM, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._averaged.close()
        with trainer.precision_plugin.val_step_context():  # hooks run outside it, unlike validation_step
            loss, _ = pl_module.validation_losses(batch)
        pl_module.add_validation("val/loss_raw", loss)
        self.on_validation_start(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._averaged.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._averaged.close()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: DDPM, checkpoint: dict[str, Any]) -> None:
        if pl_module.ema is not None:
            checkpoint["ema"] = pl_module.ema.state_dict()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("ema")


class TimeLimit(L.Callback):
    """Ends a run after ``minutes`` of training, those before it was resumed included.

    ``time_share`` of the module, for its learning rate, and the end are the same in all processes of a run.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds, self._before, self._began = 60 * minutes, 0.0, math.nan

    def on_train_start(self, trainer: L.Trainer, pl_module: DDPM) -> None:
        self._began, self._agreement = time.monotonic(), Agreement()
        self._follow(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: DDPM, optimizer: torch.optim.Optimizer) -> None:
        self._follow(trainer, pl_module)

    def _follow(self, trainer: L.Trainer, pl_module: DDPM) -> None:
        passed = self._agreement.greatest(round(1000 * self._passed())) / 1000
        pl_module.time_share = min(1.0, passed / self.seconds)
        trainer.should_stop = trainer.should_stop or passed >= self.seconds

    def _passed(self) -> float:
        return self._before if math.isnan(self._began) else self._before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self._passed()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._before = state_dict["seconds"]


class ConfigInCheckpoint(L.Callback):
    """Puts what ``models.about.checkpoint_section`` makes into every checkpoint."""

    def __init__(self, section: dict[str, Any]) -> None:
        self.section = section

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["cdm4mi"] = self.section


class Throughput(L.Callback):
    """Logs images per second, the process's memory (GiB) and, on a GPU, the most memory that it took (GiB)."""

    def __init__(self, batch_size: int, every: int) -> None:
        self.batch_size, self.every = batch_size, every
        self._since: tuple[float, int] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if self._since is None or step == self._since[1] or step % self.every:
            return
        now = time.monotonic()
        images = (step - self._since[1]) * self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        pl_module.log("train/images_per_second", images / (now - self._since[0]))
        pl_module.log("train/memory_gib", psutil.Process().memory_info().rss / 2**30)
        if pl_module.device.type == "cuda":
            pl_module.log("train/gpu_memory_gib", torch.cuda.max_memory_allocated() / 2**30)
        self._since = (now, step)


class Pictures(L.Callback):
    """Draws condition, denoising steps, result and target of a validation pair, with the EMA weights.

    Every ``picture_every`` steps, and once at the end of a run that is shorter.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.folder = folder
        self.every = min(config.training.picture_every, config.training.max_tsteps)
        self._seen = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: DDPM, *args: Any) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._seen:
            return
        self._seen = step  # the micro-batches after it have the same number
        if step % self.every:
            return
        loaders = trainer.val_dataloaders
        batch = next(iter(loaders[0] if isinstance(loaders, list) else loaders)) if loaders else None
        if batch is None:
            return
        from cdm4mi.training.pictures import denoising_picture

        pair = {k: v[:1].to(pl_module.device) for k, v in batch.items()}
        denoising_picture(self.folder / f"step-{step:07d}.png", pl_module, pair)
