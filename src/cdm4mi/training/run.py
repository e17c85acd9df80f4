"""One training run: a configuration in; checkpoints, logs, pictures and the resolved configuration out."""

from __future__ import annotations

import importlib.util
import logging
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import BatchSampler, DataLoader, Dataset

from cdm4mi import __version__
from cdm4mi.config.load import save_config
from cdm4mi.config.schema import Config, TrainingConfig
from cdm4mi.data.names import patient_hash
from cdm4mi.data.pairs import OrderedFrom, Pair, PairDataset
from cdm4mi.data.sources import limited, load_patients, split_names
from cdm4mi.errors import UserError
from cdm4mi.locks import sole_run
from cdm4mi.models import build_process, check_sizes
from cdm4mi.models.about import About, TrainingData, checkpoint_section
from cdm4mi.models.check import check_sampling, without_weights
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.networks.precision import fastest_dtype
from cdm4mi.training.ahead import MadeAhead
from cdm4mi.training.callbacks import ConfigInCheckpoint, EMACallback, Pictures, Throughput, TimeLimit
from cdm4mi.training.checkpoint_io import AtomicCheckpointIO
from cdm4mi.training.initial import begin_with, initial_model
from cdm4mi.training.last_checkpoint import BEST, LAST, PREVIOUS, LastCheckpoint, newest_checkpoint
from cdm4mi.training.limits import check_disk, check_memory, memory_errors
from cdm4mi.training.modules import DDPM, ConditionDDPM, model_class, regression_of
from cdm4mi.training.processes import Processes, is_first, joined, processes_of, quiet_unless_first
from cdm4mi.training.progress import StepProgress
from cdm4mi.training.resumed import check_split, resumed
from cdm4mi.workers import end_with_parent

log = logging.getLogger("cdm4mi.training")

EXPECTED_WARNINGS = (
    "does not have many workers",
    "LeafSpec",
    r"module\(s\) in eval mode",
    "exists and is not empty",
    "srun. command is available",
)
"""Lightning's, of what is meant here: pairs are made fast enough, a regression stays as it is, a run is resumed, one
process trains on a machine with SLURM."""
MOST_SECONDS_AFTER_SIGTERM = 60
"""A worker of the data ends so long after it, where its parent has not ended it."""
PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class PairData(L.LightningDataModule):
    """Training and validation pairs of a configuration; training goes on from the pairs that a resumed run has seen."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._began = 0, 0
        patients = load_patients(config.data, config.model.image_size, config.seed)
        self.train_names, self.val_names = split_names(patients, config.data, config.seed)
        if self.train_names == self.val_names:
            only = "one patient only" if len(self.train_names) == 1 else "no patient for validation"
            log.warning("data: %s, so validation sees what training sees", only)
        common: dict[str, Any] = {
            "degradation": config.data.noise,
            "size": config.model.image_size,
            "seed": config.seed,
            "least_foreground": config.data.foreground,
            "acquisition": config.model.acquisition_vector or (),
            "patches_per_slice": config.data.patches_per_slice,
            "slices_mixed": config.data.slices_mixed,
            "augment": config.data.augment,
            "channels": config.model.channels,
            "level_jitter": config.data.level_jitter,
            "level_map_share": config.data.level_map_share,
            "texture": config.model.texture_channels,
            "texture_jitter": config.data.texture_jitter,
        }
        train = limited([p for p in patients if p.name in set(self.train_names)], config.data.train_slices)
        used = {p.name for p in train}
        self.train_names = [name for name in self.train_names if name in used]
        val = [p for p in patients if p.name in set(self.val_names)]
        self.train_pairs = PairDataset(train, **common)
        self.val_pairs = PairDataset(val, **common, length=config.data.val_patches, validation=True)
        self.summary = TrainingData(
            patients_train=[patient_hash(n) for n in self.train_names],
            patients_val=[patient_hash(n) for n in self.val_names],
            slices_train=sum(len(p.slices) for p in train),
            slices_val=sum(len(p.slices) for p in val),
            slice_hashes=sorted({digest[:8].hex() for p in (*train, *val) for digest in p.hashes}),
        )

    def train_dataloader(self) -> Iterable[Any]:
        """Batches of pairs; to be made on the device, of what is drawn for them, one ahead."""
        trainer, training = self.trainer, self.config.training
        assert trainer is not None
        order = OrderedFrom(self.state_dict()["pairs"] + trainer.global_rank, trainer.world_size)
        workers = self.config.data.workers
        device: torch.device = trainer.strategy.root_device
        drawn_only = self._made_on_device(device)
        loader: DataLoader[Any] = DataLoader(
            Batches(self.train_pairs.draw if drawn_only else self.train_pairs.batch),
            None,
            sampler=BatchSampler(order, training.batch_size, drop_last=False),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=drawn_only and device.type == "cuda",
            worker_init_fn=_outlive_signals if workers else None,
        )
        return MadeAhead(loader, lambda drawn: self.train_pairs.make(drawn.to(device))) if drawn_only else loader

    def _made_on_device(self, device: torch.device) -> bool:
        """Whether the training pairs are made on the device. Raises UserError where they are to be and cannot."""
        wanted, hindrance = self.config.data.on_device, self.train_pairs.tied_to_cpu()
        if wanted is True and hindrance is not None:
            raise UserError(f"data.on_device: found true, but {hindrance}, expected auto or false")
        if wanted == "auto" and device.type != "cpu" and hindrance is not None:
            log.warning("data: %s, so pairs are made on the CPU, not on the %s device", hindrance, device.type)
        return hindrance is None and (wanted is True or (wanted == "auto" and device.type != "cpu"))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if batch["x0"].device == device:  # the numbers of the pairs are used on the CPU
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def val_dataloader(self) -> DataLoader[Pair]:
        """This process's share of the validation pairs; all, where no trainer has the data."""
        rank, count = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        share = range(rank, len(self.val_pairs), count)
        size = min(self.config.training.batch_size * 2, len(share))
        sampler = BatchSampler(share, size, drop_last=False)
        return DataLoader(Batches(self.val_pairs.batch), None, sampler=sampler, collate_fn=_as_it_is)

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint: the step, and how many pairs the training has used by then, in all processes."""
        trainer, training = self.trainer, self.config.training
        assert trainer is not None
        step, pairs = self._began
        pairs_a_step = training.accumulate * training.batch_size * trainer.world_size
        return {"step": trainer.global_step, "pairs": pairs + (trainer.global_step - step) * pairs_a_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there, with as many processes, and as large batches, as there are now."""
        self._began = state_dict["step"], state_dict["pairs"]


class Batches(Dataset[Any]):
    """What a function makes of the numbers of the pairs of a batch."""

    def __init__(self, made_of: Callable[[Sequence[int]], Any]) -> None:
        self.made_of = made_of

    def __getitem__(self, numbers: Sequence[int]) -> Any:
        return self.made_of(numbers)


def _as_it_is(batch: Any) -> Any:
    return batch


def _outlive_signals(worker: int) -> None:
    """Let a worker serve the step in which Ctrl-C or a scheduler's SIGTERM reached all processes, and no longer."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(MOST_SECONDS_AFTER_SIGTERM))


def train(
    config: Config, out: str | Path, *, resume: bool = False, progress: bool = True, data: PairData | None = None
) -> Path:
    """Train as configured into the folder ``out`` and return the path of the last checkpoint.

    Writes config.yaml, checkpoints/{best,last,previous}.ckpt, logs (CSV, TensorBoard) and pictures. ``resume``: go on
    from out/checkpoints/last.ckpt, bit for bit on the CPU, or begin where there is none yet. ``data``: the
    configuration's, where they have been read already. Ctrl-C or SIGTERM finishes the step, saves it and raises
    KeyboardInterrupt or ``Terminated``. Raises UserError for what the user can mend.
    """
    out = Path(out)
    with run_folder(config, out, "train"):
        start = starting_point(config, out, resume)
        config.training.precision = precision_of(config.training)
        check_sizes(config.model)
        regression = regression_of(config)
        check_sampling(config, build_process(config.model))  # these refuse what does not fit before the data are read
        initial = None if start is not None else initial_model(config)
        if initial is not None:
            earlier = About(data=initial.about.data, initial_weights=initial.weight_hash)
        else:
            earlier = About() if start is None else resumed(config, start)
        check_memory(without_weights(config))
        data = PairData(config) if data is None else data
        check_split(data.val_names, data.train_names, earlier, start)
        if regression is not None and config.model.sigma_r is None:
            config.model.sigma_r = residual_rms(regression, data)
            log.info("sigma_r: %.4f, of what the regression leaves on the validation patients", config.model.sigma_r)
        kind = model_class(config.model)
        module = ConditionDDPM(config=config, regression=regression) if kind is ConditionDDPM else kind(config=config)
        if initial is not None:
            begin_with(module.model, initial)
        seen = data.summary.after(earlier.data)
        about = About(version=__version__, data=seen, initial_weights=earlier.initial_weights)
        section = checkpoint_section(config, about, None if regression is None else regression.config)
        return fit(module, data, config, out, section, start=start, progress=progress)


@contextmanager
def run_folder(config: Config, out: Path, command: str) -> Iterator[None]:
    """Hold the folder of a run for its first process; errors for want of memory become one line in each."""
    quiet_unless_first()
    with sole_run(out, command) if is_first() else nullcontext(), memory_errors(config):
        yield


def precision_of(training: TrainingConfig) -> Literal["32", "bf16", "fp16"]:
    """The precision of a training: as configured; auto: what its device computes fastest."""
    if training.precision != "auto":
        return training.precision
    found: dict[torch.dtype, Literal["32", "bf16", "fp16"]] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    precision = found.get(fastest_dtype(torch.device(processes_of(training).accelerator)), "32")
    log.warning("precision: %s, the fastest of this device", precision)
    return precision


def starting_point(config: Config, out: Path, resume: bool) -> Path | None:
    """The checkpoint that the run in a folder goes on from; None where it begins.

    Raises UserError for what cannot be run, before the data are read: into a folder with a run that is not resumed,
    fp16 on no GPU, wandb without its package, more processes than devices or validation pairs.
    """
    checkpoints = out / "checkpoints"
    processes = processes_of(config.training)
    if processes.count > config.data.val_patches:
        found = f"{config.data.val_patches} with {processes.count} processes"
        raise UserError(f"data.val_patches: found {found}, expected at least one for each")
    if not resume and any((checkpoints / name).exists() for name in (LAST, PREVIOUS)):
        raise UserError(f"{out}: holds a run already; give `resume` to go on with it, or another `out`")
    if config.training.precision == "fp16" and processes.accelerator != "cuda":
        raise UserError("training.precision: found fp16 without a CUDA GPU, expected auto, 32 or bf16")
    if config.training.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("training.wandb: found true without the package, expected: pip install cdm4mi[wandb]")
    start = None
    if resume:
        start = newest_checkpoint(checkpoints) if is_first() else _checkpoint_of_the_first(checkpoints)
    if resume and start is None:
        log.warning("%s: holds no checkpoint yet, so the run begins", out)
    return start


def _checkpoint_of_the_first(folder: Path) -> Path | None:
    """What ``newest_checkpoint`` finds, or makes, in the first process of a run, which alone repairs its folder."""
    return folder / LAST if any((folder / name).exists() for name in (LAST, PREVIOUS, BEST)) else None


def fit(
    module: DDPM,
    data: PairData,
    config: Config,
    out: Path,
    section: dict[str, Any],
    *,
    start: Path | None,
    progress: bool,
) -> Path:
    """Run the training of a module in its folder, from the checkpoint ``start`` on, and return its last checkpoint.

    section: goes into every checkpoint.
    """
    last = out / "checkpoints" / LAST
    training, processes = config.training, processes_of(config.training)
    if is_first():
        check_disk(module, out)
        save_config(config, out / "config.yaml")
    if processes.count > 1:
        pairs = processes.count * training.batch_size * training.accumulate
        log.warning("%d processes (%s), %d pairs a step in all", processes.count, processes.accelerator, pairs)
    saver = LastCheckpoint(last, training.checkpoint_every)
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        trainer = make_trainer(config, out, section, progress, saver, processes)
        with joined(processes):
            with saver.on_signals():
                trainer.fit(module, data, ckpt_path=start and str(start), weights_only=True)
            trainer.save_checkpoint(last)
    return last


@torch.no_grad()
def residual_rms(regression: TrainedModel, data: PairData) -> float:
    """Root mean square of what the regression leaves of x0, on pairs of the validation patients (out of fold)."""
    total, count = 0.0, 0
    for batch in data.val_dataloader():
        cond = regression.process.condition_of(batch)
        mean = regression.process.mean(regression.network, cond)
        total, count = total + float(((batch["x0"] - mean) ** 2).double().sum()), count + mean.numel()
    rms: float = (total / count) ** 0.5
    return rms


def make_trainer(
    config: Config, out: Path, section: dict[str, Any], progress: bool, last: LastCheckpoint, processes: Processes
) -> L.Trainer:
    """The Lightning trainer of a configuration: devices, callbacks, loggers, precision, clipping."""
    training = config.training
    log_every = min(training.log_every, training.max_tsteps)  # a short run says something too
    callbacks: list[L.Callback] = [ConfigInCheckpoint(section)]
    if training.use_ema:
        callbacks.append(EMACallback())
    callbacks += [
        Throughput(training.batch_size, log_every),
        LearningRateMonitor("step"),
        ModelCheckpoint(out / "checkpoints", "best", monitor="val/loss", enable_version_counter=False),
        last,
    ]
    if training.max_minutes is not None:
        callbacks.append(TimeLimit(training.max_minutes))
    if training.picture_every:
        callbacks.append(Pictures(config, out / "pictures"))
    if progress:
        callbacks.append(StepProgress())
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return L.Trainer(
        max_steps=training.max_tsteps,
        max_epochs=-1,
        **processes.trainer_arguments(),
        precision=PRECISION[training.precision],
        benchmark=processes.accelerator == "cuda",  # all batches have one size
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.gradient_clip or None,
        val_check_interval=min(training.val_every, training.max_tsteps) * training.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=log_every,
        callbacks=callbacks,
        logger=make_loggers(config, out),
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def make_loggers(config: Config, out: Path) -> list[Logger]:
    """CSV and TensorBoard, and Weights & Biases where asked for; a resumed run writes a new version of the CSV."""
    loggers: list[Logger] = [CSVLogger(out, "logs"), TensorBoardLogger(out, "tensorboard")]
    if config.training.wandb:
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project="cdm4mi", name=config.name, save_dir=out))
    return loggers
