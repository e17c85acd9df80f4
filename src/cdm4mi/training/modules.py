"""DDPM and ConditionDDPM: a network, a process, a loss and an EMA in one, for a notebook or a Lightning Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from cdm4mi.config.load import keyword_config, parse_config
from cdm4mi.config.schema import Config, ModelConfig, SamplingConfig, TrainingConfig
from cdm4mi.config.yaml_text import shown
from cdm4mi.diffusion.losses import loss_per_sample, min_snr_weight, posterior_weight
from cdm4mi.diffusion.noise import KeyedNoise, SeededNoise, generator
from cdm4mi.errors import UserError
from cdm4mi.models import build_network, build_process
from cdm4mi.models.checkpoint import TrainedModel, load_model
from cdm4mi.models.condition import Condition
from cdm4mi.models.process import Network
from cdm4mi.models.sampler import Hook, Sampler
from cdm4mi.networks.precision import arrange_for
from cdm4mi.training.ema import EMA
from cdm4mi.training.finite import check_loss, check_weights
from cdm4mi.training.given import check_images, check_index, check_sigma, check_size

Batch = dict[str, Tensor]
QUARTERS = 4
VALIDATION = ("val/loss", "val/loss_raw", *(f"val/loss_t{q + 1}of{QUARTERS}" for q in range(QUARTERS)))
"""Means over the validation pairs of all processes that a run logs."""
GOLDEN = (5**0.5 - 1) / 2
_TIMES, _NOISE, _DROPOUT, _VALIDATION = 2, 3, 4, 5
"""Second part of the keys of training's random streams; ``data.pairs`` has 0 and 1."""


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on a device; a GPU gets them while the CPU goes on."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def learning_rate_factor(config: TrainingConfig, time_share: Callable[[], float]) -> Callable[[int], float]:
    """The factor on the learning rate at each optimizer step: a linear warm-up, then constant, linear or cosine.

    time_share: of ``max_minutes`` that have passed; the decay follows it where it is further than the steps.
    """

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        done = min(1.0, max((step - config.warmup) / max(1, config.max_tsteps - config.warmup), time_share()))
        if config.lr_decay == "linear":
            return 1 - done
        if config.lr_decay == "cosine":
            return float(0.5 * (1 + torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
        return 1.0

    return factor


class DDPM(L.LightningModule):
    """An unconditional diffusion model (Ho et al. 2020): learns clean images.

        model = DDPM(timesteps=1000, parameterization="v", unet_rosinality_config={"in_channel": 1, "channel": 32})
        model(x0).backward()            # a training loss; then optimizer.step() and model.ema.update()
        images = model.sample(n=4, steps=50)

    keys: any key of the sections model, training and sampling of the configuration (``config/schema.py``), by its bare
    name, and ``seed``; or ``config``: a whole configuration. wrapper: takes the place of a freshly made
    ``DiffusionWrapper``; it is called as wrapper(x, t, condition).

    ``model``: the network in its wrapper; ``process``: path and parameterization; ``ema``: averages of the weights of
    ``model``, None with use_ema=False. The seed decides the first weights; the time and the noise of a pair together
    with the pair's number (``index``), whatever batch, micro-batch or process it comes in; and, in a run, the dropout
    of a micro-batch together with the number of its first pair. So a resumed run goes on as if it had not stopped.
    Raises UserError, one line that names the key.
    """

    defaults: ClassVar[dict[str, Any]] = {"conditioning_key": "none", "in_channel": 1}

    def __init__(self, *, config: Config | None = None, wrapper: nn.Module | None = None, **keys: Any) -> None:
        super().__init__()
        config = self.configured(config, keys)
        self.config, self.process = config, build_process(config.model)
        self.model = fresh_wrapper(config) if wrapper is None else wrapper
        training = config.training
        self.time_share = 0.0
        self._compiled = torch.compile(self._call_model, dynamic=False) if training.compile else None
        self.ema = EMA(self.model, training.ema_decay_factor, training.ema_warmup) if training.use_ema else None

    @classmethod
    def configured(cls, config: Config | None, keys: dict[str, Any]) -> Config:
        """The configuration that is given, or that of the keys. Raises UserError, one line that names the key."""
        if config is not None and keys:
            raise UserError(f"{cls.__name__}: found config and {next(iter(keys))}, expected one of them")
        config = keyword_config(cls.defaults | keys, cls.__name__) if config is None else config
        if not issubclass(cls, model_class(config.model)):
            key = config.model.conditioning_key
            raise UserError(f"{cls.__name__}: found conditioning_key {key}, expected none (or the class ConditionDDPM)")
        return config

    def condition(self, batch: Batch) -> Condition:
        """What is known of the clean images of a batch beside x_t (here nothing)."""
        return Condition()

    def _call_model(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The network's output: compiled as a function, as a compiled module would be a second one in checkpoints."""
        out: Tensor = self.model(x_t, t, cond)
        return out

    def losses(self, batch: Batch, t: Tensor, eps: Tensor) -> Tensor:
        """The weighted loss of each sample, (N,), at times t (N,) with the noise eps (N, C, H, W)."""
        x0, training = batch["x0"], self.config.training
        parameterization = self.process.parameterization
        cond = self.condition(batch)
        z = self.process.latent(self.process.path.q_sample(x0, t, eps, cond.anchor), t, cond)
        network: Network = self.model
        if self._compiled is not None and torch.is_grad_enabled():  # validation has batches of other sizes
            network = self._compiled
        out = self.process.output(network, z, cond)
        target = parameterization.target(x0, eps, z)
        loss = loss_per_sample(
            out, target, training.loss_type, huber_delta=training.huber_delta, pixel_weight=batch.get("weight")
        )
        if training.min_snr_gamma is not None:
            loss = loss * min_snr_weight(parameterization, z, training.min_snr_gamma)
        if training.neighbour_std is not None:
            loss = loss * posterior_weight(parameterization, z, training.neighbour_std)
        return loss

    def loss(
        self,
        x0: Tensor,
        cond: Any = None,
        *,
        sigma: float | Tensor | None = None,
        texture: Tensor | None = None,
        vector: Tensor | None = None,
        weight: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """The training loss of a batch, a scalar: the mean over its samples, at times and with noise drawn for each.

        x0: clean images (N, C, H, W) on [-1, 1]. cond: the condition of each, as the network takes it
        (``DiffusionWrapper``): the noisy image (N, C, H, W), tokens (N, L, D), a vector (N, D). sigma: standard
        deviation of the condition's noise on [-1, 1], a number or (N,); needed by ``level_channel``, ``neighbour_std``
        and precond without ``sigma_r``. texture: of that noise, (N, 3) as in ``Condition``; for ``texture_channels``,
        where it is white and signed if None. vector: acquisition numbers (N, D) beside an image. weight: of the pixels,
        shape broadcastable to x0. index: numbers (N,) of the pairs, which with the seed decide times and noise
        (``draw``); None: torch's global stream does. Raises UserError for what is missing or of another shape.
        """
        channels = self.config.model.channels
        if x0.ndim != 4 or x0.shape[1] != channels:
            raise UserError(f"{type(self).__name__}: x0: found shape {tuple(x0.shape)}, expected (N, {channels}, H, W)")
        name = type(self).__name__
        check_images(f"{name}: x0", x0, self.model)
        check_index(f"{name}: index", index, len(x0))
        batch = {"x0": x0} | self._given(cond, sigma, texture, vector, x0.shape)
        if weight is not None:
            batch["weight"] = weight
        return self.losses(batch, *self.draw(x0, index)).mean()

    def forward(self, x0: Tensor, cond: Any = None, **options: Any) -> Tensor:
        """``loss``, with its arguments."""
        return self.loss(x0, cond, **options)

    def _given(
        self,
        cond: Any,
        sigma: float | Tensor | None,
        texture: Tensor | None,
        vector: Tensor | None,
        shape: Sequence[int],
    ) -> Batch:
        """What stands beside x0, of this shape, in a batch (here nothing)."""
        return {"sigma": torch.zeros(shape[0], device=self.device)}

    @torch.no_grad()
    def sample(
        self,
        cond: Any = None,
        *,
        sigma: float | Tensor | None = None,
        texture: Tensor | None = None,
        vector: Tensor | None = None,
        steps: int | None = None,
        solver: str | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        n: int = 1,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        hook: Hook | None = None,
    ) -> Tensor:
        """One sample of the clean image of each condition, (N, C, H, W) on [-1, 1], by the averaged (EMA) weights.

        cond, sigma, texture, vector: as for ``loss``. steps, solver, eta, spacing: in place of the sampling section's;
        its other keys hold, ``start_from`` y where sigma is given. n: how many images where there is no condition.
        size: rows and columns; None: those of a conditioning image, else image_size. seed: decides the noise together
        with the place in the batch. hook: called with every intermediate state. Raises UserError.
        """
        count = n if cond is None else len(cond)
        if size is None:
            image = isinstance(cond, Tensor) and cond.ndim == 4
            size = (cond.shape[2], cond.shape[3]) if image else (self.config.model.image_size,) * 2
        name, shape = type(self).__name__, (self.config.model.channels, *size)
        check_size(f"{name}: size", size, self.model)
        if seed < 0:
            raise UserError(f"{name}: seed: found {seed}, expected at least 0")
        settings = self._sampling({"steps": steps, "solver": solver, "eta": eta, "spacing": spacing})
        batch = self._given(cond, sigma, texture, vector, (count, *shape))
        y = batch.get("y")
        noisy = self.process.noisy_image(y) if isinstance(y, Tensor) and y.shape[2:] == size else None
        start_from = "noise" if noisy is None or sigma is None else settings.start_from
        settings = settings.model_copy(update={"estimate": "sample", "start_from": start_from})
        process = self.process.keeping_mean(settings.keep_mean)
        sampler = Sampler(process, settings, default_steps=None if steps else settings.steps)
        noise = SeededNoise(seed, range(count), shape, self.device)
        training = self.model.training
        self.model.eval()
        try:
            with nullcontext() if self.ema is None else self.ema.applied():
                given = self.condition(batch)
                if process.keep_mean and given.anchor is None:
                    given = replace(given, anchor=noisy)
                return sampler.draw(process.denoiser(self.model, given), given, noise.draw, hook=hook)
        finally:
            self.model.train(training)

    def _sampling(self, options: dict[str, Any]) -> SamplingConfig:
        """The sampling section with the options that are not None in their place."""
        given = {key: value for key, value in options.items() if value is not None}
        if given.keys() & {"steps", "spacing"}:  # another choice of times
            given["times"] = None
        section = self.config.sampling.model_dump() | given
        return parse_config({"sampling": section}, where=f"{type(self).__name__}.sample").sampling

    def times(self, uniform: Tensor) -> Tensor:
        """Training times (N,) from two uniform numbers of each sample, (N, 2) in [0, 1).

        Uniform over the path, but for a ``start_fraction`` of the samples at the noisy end.
        """
        timesteps = self.process.path.timesteps
        t = (uniform[:, 0] * timesteps).long()
        return torch.where(uniform[:, 1] < self.config.training.start_fraction, timesteps - 1, t)

    def draw(self, x0: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Training times (N,) and unit noise like x0 (N, C, H, W), on its device.

        index: numbers (N,) of the pairs, on the CPU, which with the seed decide both, sample by sample; None: drawn
        from torch's global stream.
        """
        if index is None:
            return self.times(torch.rand(len(x0), 2)).to(x0.device), torch.randn_like(x0)
        uniform = KeyedNoise.of(self.config.seed, _TIMES, index=index.cpu()).uniform(2)
        return sent(self.times(uniform), x0.device), self._noise(x0, index, _NOISE)

    def _noise(self, x0: Tensor, index: Tensor, stream: int) -> Tensor:
        """Unit noise like x0 (N, C, H, W), decided by the seed, the stream and the pairs' numbers (N,)."""
        keys = KeyedNoise.of(self.config.seed, stream, index=index.cpu()).keys
        return KeyedNoise(sent(keys, x0.device)).normal(*x0.shape[1:]).to(x0.dtype)

    def setup(self, stage: str) -> None:
        """Arrange the network for the device of a run, before it goes there and its averages are begun."""
        arrange_for(self.model, self.trainer.strategy.root_device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # what is left to the global stream is dropout, whose masks torch draws for a micro-batch as a whole
        torch.manual_seed(generator(self.config.seed, _DROPOUT, int(batch["index"][0])).initial_seed())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x0 = batch["x0"]
        loss = self.losses(batch, *self.draw(x0, batch["index"])).mean()
        shown = loss.detach()
        if self._is_logged():  # the mean of all processes; at other steps the bar shows that of this one
            shown = self.trainer.strategy.reduce(shown.clone())
            if self.config.training.precision != "fp16":  # whose scaler skips a step now and then
                check_loss("train/loss", shown, self.trainer.global_step + 1)
        self.log("train/loss", shown, on_step=True, on_epoch=False, prog_bar=True, batch_size=len(x0))
        return loss

    def _is_logged(self) -> bool:
        """Whether this step is one of those that the logs show."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector, not declared
        return (self.trainer.global_step + 1) % every == 0

    def validation_times(self, index: Tensor) -> Tensor:
        """Times (N,) of the validation pairs of these numbers: all pairs together are spread evenly over the path.

        Pairs in a row, which may share a slice, have times far apart (by the golden ratio).
        """
        pairs = self.config.data.val_patches
        stride = next(k for k in range(round(pairs * GOLDEN), -1, -1) if math.gcd(k, pairs) == 1)
        return ((index * stride % pairs + 0.5) / pairs * self.process.path.timesteps).long()

    def validation_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses, times) of a validation batch: both are decided for each pair by the seed and its number."""
        index = batch["index"]
        t = self.validation_times(index).to(batch["x0"].device)
        return self.losses(batch, t, self._noise(batch["x0"], index, _VALIDATION)), t

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(2, len(VALIDATION), device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, t = self.validation_losses(batch)
        self.add_validation("val/loss", loss)
        quarter = t * QUARTERS // self.process.path.timesteps
        for q in range(QUARTERS):
            self.add_validation(f"val/loss_t{q + 1}of{QUARTERS}", loss[quarter == q])

    def add_validation(self, name: str, losses: Tensor) -> None:
        """Count the losses (N,) of validation pairs for a mean of this name, which is logged when all are done."""
        self._validation[:, VALIDATION.index(name)] += torch.stack([losses.sum(), losses.new_tensor(len(losses))])

    def on_validation_epoch_end(self) -> None:
        # Lightning's own mean over processes rounds the counts of pairs, which need not be equal
        sums, counts = self.trainer.strategy.reduce(self._validation, reduce_op="sum")
        for name, total, count in zip(VALIDATION, sums, counts, strict=True):
            if count > 0:
                check_loss(name, total, self.trainer.global_step)
                self.log(name, total / count, prog_bar=name == "val/loss", batch_size=1, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._is_logged():
            norms = [p.grad.detach().norm() for p in self.parameters() if p.grad is not None]
            self.log("train/gradient_norm", torch.stack(norms).norm())

    def make_optimizer(self) -> torch.optim.AdamW:
        """AdamW with the training section's learning_rate, betas and weight_decay."""
        training = self.config.training
        beta1, beta2 = training.betas
        learnt = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            learnt,
            training.learning_rate,
            betas=(beta1, beta2),
            weight_decay=training.weight_decay,
            fused=not self._clips_scaled_gradients and all(p.is_cuda for p in learnt),
        )

    @property
    def _clips_scaled_gradients(self) -> bool:
        """Whether gradients have the factor of fp16 when they are clipped, unless the optimizer leaves it to others."""
        return self.config.training.gradient_clip > 0 and self.config.training.precision == "fp16"

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self._clips_scaled_gradients or gradient_clip_val is None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:  # Lightning refuses to for every fused optimizer in mixed precision
            learnt = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(learnt, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer()
        factor = learning_rate_factor(self.config.training, lambda: self.time_share)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that are not finite; the checkpoint that is there stays."""
        check_weights(checkpoint["state_dict"], checkpoint["global_step"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the optimizer's moments, and give it the learning rate, betas and weight decay of the configuration."""
        training = self.config.training
        rate = training.learning_rate
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                group["lr"] *= rate / group["initial_lr"]
                group |= {"initial_lr": rate, "betas": tuple(training.betas), "weight_decay": training.weight_decay}
        for schedule in checkpoint.get("lr_schedulers", []):
            schedule["base_lrs"] = [rate] * len(schedule["base_lrs"])


class ConditionDDPM(DDPM):
    """A diffusion model of clean images given a condition: of (N, C, H, W) images, a noisy image of each, say.

        model = ConditionDDPM(timesteps=1000, beta_schedule="linear", parameterization="eps", conditioning_key="concat",
                              loss_type="l2", unet_rosinality_config={"channel": 32}, learning_rate=1e-4, use_ema=True)
        optimizer = model.make_optimizer()
        model(x0, y).backward()         # a training loss; then optimizer.step() and model.ema.update()
        restored = model.sample(y, steps=50, seed=0)

    cond: a module between the condition as the user has it (labels, say) and as the network takes it (an image, tokens
    or a vector: ``DiffusionWrapper``), trained and averaged with the network; None: the condition goes in as it is.
    config, wrapper, keys, attributes, errors: as ``DDPM``; ``conditioning_key`` says how the condition enters.
    regression: a trained model, or its path, whose mean takes the place of y as the anchor of path and
    parameterization; its weights stay as they are and are saved with the model.

    A run's batches hold ``x0``, ``y``, ``sigma``, ``index`` and, if any, ``relative_level``, ``texture``, ``vector``
    and ``weight``.
    """

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        cond: nn.Module | None = None,
        *,
        config: Config | None = None,
        wrapper: nn.Module | None = None,
        regression: TrainedModel | str | None = None,
        **keys: Any,
    ) -> None:
        if cond is not None and not isinstance(cond, nn.Module):
            raise UserError(
                f"ConditionDDPM: cond: found {shown(cond)}, expected a torch module that makes the condition "
                "(conditioning_key says how it enters)"
            )
        if regression is not None and config is None:
            keys["regression"] = regression.name if isinstance(regression, TrainedModel) else regression
        config = self.configured(config, keys)
        if not isinstance(regression, TrainedModel):
            regression = regression_of(config)
        super().__init__(config=config, wrapper=fresh_wrapper(config, cond) if wrapper is None else wrapper)
        self.regression = None if regression is None else regression.network.requires_grad_(False)
        self.regression_process = None if regression is None else regression.process

    def _given(
        self,
        cond: Any,
        sigma: float | Tensor | None,
        texture: Tensor | None,
        vector: Tensor | None,
        shape: Sequence[int],
    ) -> Batch:
        """y, sigma, texture and vector of a batch. Raises UserError where the model needs what is not there."""
        name, process = type(self).__name__, self.process
        if getattr(self.model, "cond", None) is None:  # of its own a module may take anything
            check_images(f"{name}: cond", cond, self.model)
        check_sigma(f"{name}: sigma", sigma)
        expected = (shape[0], shape[1] + self.config.further_channels, *shape[2:])
        if process.anchored and (not isinstance(cond, Tensor) or cond.shape != torch.Size(expected)):
            found = f"shape {tuple(cond.shape)}" if isinstance(cond, Tensor) else shown(cond)
            raise UserError(f"{name}: cond: found {found}, expected an image of shape {expected}")
        needed = process.conditioned_on_level or self.config.training.neighbour_std is not None
        if self.regression_process is not None:
            needed = needed or self.regression_process.conditioned_on_level
        if sigma is None and needed:
            raise UserError(f"{name}: sigma: found none, expected the standard deviation of the condition's noise")
        sigmas = torch.as_tensor(0.0 if sigma is None else sigma, dtype=torch.float32, device=self.device)
        if sigmas.ndim and sigmas.shape != torch.Size(shape[:1]):
            raise UserError(f"{name}: sigma: found shape {tuple(sigmas.shape)}, expected a number or ({shape[0]},)")
        given = {"y": cond, "sigma": sigmas.expand(shape[0])}
        if process.texture_channels:
            given["texture"] = torch.zeros(shape[0], 3, device=self.device) if texture is None else texture
        return given if vector is None else given | {"vector": vector}

    def condition(self, batch: Batch) -> Condition:
        y, sigma, vector = batch["y"], batch["sigma"], batch.get("vector")
        if not isinstance(y, Tensor) or y.ndim != 4 or getattr(self.model, "cond", None) is not None:
            anchor = self.process.noisy_image(y) if self.process.anchored else None
            return Condition(y, sigma, vector=vector, anchor=anchor, as_given=True)  # for the wrapper to understand
        if not self.process.anchored:
            return Condition(y, sigma, batch.get("texture"), batch.get("relative_level"), vector)
        cond = self.process.condition_of(batch)
        if self.regression is None or self.regression_process is None:
            return cond
        with torch.no_grad():
            self.regression.eval()
            return replace(cond, anchor=self.regression_process.mean(self.regression, cond))


def fresh_wrapper(config: Config, cond: nn.Module | None = None) -> nn.Module:
    """The network in its wrapper, with first weights by the configuration's seed; torch's global stream is left alone.

    cond: as for ``ConditionDDPM``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)
        return build_network(config.model, cond, config.further_channels)


def model_class(config: ModelConfig) -> type[DDPM]:
    """The class that trains a model: ``DDPM`` where neither the network nor the path knows a condition."""
    conditional = config.conditioning_key != "none" or config.path in ("bridge", "i2sb")
    return ConditionDDPM if conditional else DDPM


def regression_of(config: Config) -> TrainedModel | None:
    """The trained model that ``model.regression`` names. Raises UserError where it does not suit the model."""
    if config.model.regression is None:
        return None
    regression = load_model(config.model.regression)
    if regression.regression is not None or regression.process.parameterization.name != "precond":
        raise UserError(
            f"model.regression: {config.model.regression}: found parameterization "
            f"{regression.config.model.parameterization}, expected precond, without a regression of its own "
            "(its first call is a mean)"
        )
    expected, other = config.model.channels + config.further_channels, regression.config
    if other.model.channels + other.further_channels != expected or other.data.neighbours != config.data.neighbours:
        raise UserError(
            f"model.regression: {config.model.regression}: found a condition of "
            f"{other.model.channels + other.further_channels} channel(s), expected the {expected} of this model "
            "(channels, data.neighbours and data.contrasts)"
        )
    return regression
