"""DDPM and ConditionDDPM: LightningModules that hold a network, a process and a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from cdm4mi.config.schema import TrainingConfig
from cdm4mi.diffusion.losses import loss_per_sample, min_snr_weight, posterior_weight
from cdm4mi.diffusion.noise import generator
from cdm4mi.diffusion.parameterizations import Latent
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.process import ConditionalProcess
from cdm4mi.networks import Condition

Batch = dict[str, Tensor]
QUARTERS = 4
GOLDEN = (5**0.5 - 1) / 2


def learning_rate_factor(config: TrainingConfig) -> Callable[[int], float]:
    """The factor on the learning rate at each optimizer step: a linear warm-up, then constant, linear or cosine."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        done = min(1.0, (step - config.warmup) / max(1, config.max_tsteps - config.warmup))
        if config.lr_decay == "linear":
            return 1 - done
        if config.lr_decay == "cosine":
            return float(0.5 * (1 + torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
        return 1.0

    return factor


class DDPM(L.LightningModule):
    """An unconditional diffusion model (Ho et al. 2020): learns the clean images of the batch.

    network: called as network(x, t, condition); process: path and parameterization; config: loss and optimizer; seed:
    decides times, noise and dropout of every step together with the step's number, so that a resumed run goes on as
    if it had not stopped.
    """

    def __init__(self, network: nn.Module, process: ConditionalProcess, config: TrainingConfig, seed: int = 0) -> None:
        super().__init__()
        self.model = network
        self.process = process
        self.config = config
        self.seed = seed

    def anchor(self, batch: Batch) -> Tensor | None:
        """The image that path and parameterization rest on (here none)."""
        return None

    def latent(self, batch: Batch, x_t: Tensor, t: Tensor, anchor: Tensor | None) -> Latent:
        """The point of the path, with what is known of the condition (here nothing)."""
        return Latent(self.process.path, x_t, t)

    def condition(self, batch: Batch) -> Condition:
        """What the network is told beside x_t (here nothing)."""
        return Condition()

    def losses(self, batch: Batch, t: Tensor, eps: Tensor) -> Tensor:
        """The weighted loss of each sample, (N,), at times t (N,) with the noise eps (N, C, H, W)."""
        x0 = batch["x0"]
        parameterization = self.process.parameterization
        anchor = self.anchor(batch)
        z = self.latent(batch, self.process.path.q_sample(x0, t, eps, anchor), t, anchor)
        out = self.process.output(self.model, z, self.condition(batch))
        target = parameterization.target(x0, eps, z)
        loss = loss_per_sample(
            out, target, self.config.loss_type, huber_delta=self.config.huber_delta, pixel_weight=batch.get("weight")
        )
        if self.config.min_snr_gamma is not None:
            loss = loss * min_snr_weight(parameterization, z, self.config.min_snr_gamma)
        if self.config.detail is not None:
            loss = loss * posterior_weight(parameterization, z, self.config.detail)
        return loss

    def draw_times(self, n: int) -> Tensor:
        """Training times: uniform, but for a ``start_fraction`` of the samples at the noisy end."""
        last = self.process.path.timesteps - 1
        t = torch.randint(0, last + 1, (n,))
        return torch.where(torch.rand(n) < self.config.start_fraction, torch.full_like(t, last), t)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # one stream a micro-batch: nothing drawn in a step depends on what was drawn before it
        position = self.trainer.global_step * self.config.accumulate + batch_idx % self.config.accumulate
        torch.manual_seed(generator(self.seed, position, self.global_rank).initial_seed())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x0 = batch["x0"]
        t = self.draw_times(len(x0)).to(x0.device)
        loss = self.losses(batch, t, torch.randn_like(x0)).mean()
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, batch_size=len(x0))
        return loss

    def validation_losses(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """(losses, times) of a validation batch: times spread evenly over the path, noise decided by the seed.

        Within its share of the path a time moves from batch to batch (by the golden ratio), so that batches of one or
        two samples see all of it too.
        """
        x0 = batch["x0"]
        n, timesteps = len(x0), self.process.path.timesteps
        t = ((torch.arange(n) + (0.5 + batch_idx * GOLDEN) % 1) / n * timesteps).long().to(x0.device)
        eps = torch.randn(x0.shape, generator=generator(self.seed, 2**31 + batch_idx)).to(x0.device)
        return self.losses(batch, t, eps), t

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, t = self.validation_losses(batch, batch_idx)
        self.log("val/loss", loss.mean(), on_epoch=True, prog_bar=True, batch_size=len(loss), sync_dist=True)
        quarter = t * QUARTERS // self.process.path.timesteps
        for q in range(QUARTERS):
            chosen = loss[quarter == q]
            if len(chosen):
                name = f"val/loss_t{q + 1}of{QUARTERS}"
                self.log(name, chosen.mean(), on_epoch=True, batch_size=len(chosen), sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0:
            norms = [p.grad.detach().norm() for p in self.parameters() if p.grad is not None]
            self.log("train/gradient_norm", torch.stack(norms).norm())

    def configure_optimizers(self) -> Any:
        config = self.config
        beta1, beta2 = config.betas
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            config.learning_rate,
            betas=(beta1, beta2),
            weight_decay=config.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class ConditionDDPM(DDPM):
    """A diffusion model of clean images given a condition: the batch's ``y``, ``level`` and, if any, ``vector``.

    regression: a trained model whose mean takes the place of y as the anchor of path and parameterization; its weights
    stay as they are and are saved with the model.
    """

    def __init__(
        self,
        network: nn.Module,
        process: ConditionalProcess,
        config: TrainingConfig,
        seed: int = 0,
        regression: TrainedModel | None = None,
    ) -> None:
        super().__init__(network, process, config, seed)
        self.regression = None if regression is None else regression.network.requires_grad_(False)
        self.regression_process = None if regression is None else regression.process

    def anchor(self, batch: Batch) -> Tensor | None:
        if not self.process.anchored:
            return None
        if self.regression is None or self.regression_process is None:
            return self.process.own(batch["y"])
        with torch.no_grad():
            self.regression.eval()
            return self.regression_process.mean(self.regression, batch["y"], batch["level"], batch.get("vector"))

    def latent(self, batch: Batch, x_t: Tensor, t: Tensor, anchor: Tensor | None) -> Latent:
        return self.process.latent(x_t, t, self.process.own(batch["y"]) if anchor is None else anchor, batch["level"])

    def condition(self, batch: Batch) -> Condition:
        return self.process.condition(batch["y"], batch["level"], batch.get("vector"))
