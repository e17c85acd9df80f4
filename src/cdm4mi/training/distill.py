"""Distillation: a student that gives in one or two network calls the images that its teacher's sampler gives in many.

Knowledge distillation of the map from noise to image (Luhman and Luhman 2021, arXiv 2101.02388): the student starts
from the teacher's weights and learns, for the same noise field, the image at which the teacher's deterministic sampler
ends. With two calls the first is the teacher's first, an estimate of the mean given y alone, so that the student's mean
is the teacher's; DDIM then takes it to a time in the middle of the path, where the second call gives the sample. So a
student's sample of a seed is its teacher's sample of that seed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cdm4mi import __version__
from cdm4mi.config.load import parse_config
from cdm4mi.config.schema import Config
from cdm4mi.diffusion.losses import loss_per_sample
from cdm4mi.diffusion.sdedit import start_time
from cdm4mi.diffusion.solvers.ddim import ddim
from cdm4mi.diffusion.solvers.step import Step
from cdm4mi.diffusion.times import given_times
from cdm4mi.errors import UserError
from cdm4mi.models.about import About, checkpoint_section
from cdm4mi.models.checkpoint import TrainedModel
from cdm4mi.models.ckpt_file import read_ckpt
from cdm4mi.models.condition import Condition
from cdm4mi.training.modules import Batch, ConditionDDPM
from cdm4mi.training.run import PairData, fit, run_folder, starting_point
from cdm4mi.training.teacher import DistillTarget, Teacher

MIDDLE = 1.3
"""Noise c / a at the call that gives the sample, in root mean squares of x0 - y."""
START_FRACTION = 0.25
"""Share of the training that keeps the first of two calls the teacher's."""
SLOWER = 0.5
"""The student's learning rate, in the teacher's: it begins where the teacher ended."""


class DistilledDDPM(ConditionDDPM):
    """Learns what the teacher says of its own starting noise; x0 of a batch is not used.

    config: the student's, of the teacher's model; network: it begins with the teacher's weights.
    times: those of the student's calls, ending in the one that gives the sample; two begin at T - 1.
    """

    def __init__(self, config: Config, network: nn.Module, teacher: Teacher, times: Sequence[int]) -> None:
        super().__init__(config=config, wrapper=network, regression=teacher.model.regression)
        self.teacher, self.call_times = teacher, list(times)

    def times(self, uniform: Tensor) -> Tensor:
        """The student's first time for a ``start_fraction`` of the samples, its last for the others."""
        return torch.where(uniform[:, 1] < self.config.training.start_fraction, self.call_times[0], self.call_times[-1])

    def losses(self, batch: Batch, t: Tensor, eps: Tensor) -> Tensor:
        """The loss of each sample, (N,), at one of the student's times; eps: the noise field that names the sample."""
        cond = self.condition(batch)
        x_t, target = torch.empty_like(eps), torch.empty_like(eps)
        for last in (True, False):  # the first call is learnt from the teacher's first, which costs no more
            part = (t == self.call_times[-1]) == last
            if bool(part.any()):
                given = cond[part]
                if given.anchor is None:
                    given = replace(given, anchor=self.process.noisy_image(given.y))
                taught = self.teacher(given, eps[part], first_only=not last)
                x_t[part] = self.before_last(taught, given, eps[part]) if last else taught.start
                target[part] = taught.end
        z = self.process.latent(x_t, t, cond)
        out = self.process.output(self.model, z, cond)
        training = self.config.training
        wanted = self.process.parameterization.target(target, self.process.path.eps(x_t, target, t, cond.anchor), z)
        return loss_per_sample(out, wanted, training.loss_type, huber_delta=training.huber_delta)

    def before_last(self, taught: DistillTarget, cond: Condition, noise: Tensor) -> Tensor:
        """x at the time of the last call: after DDIM's step from the first, or where sampling starts."""
        path = self.process.path
        if len(self.call_times) == 1:
            return self.process.start(noise, cond, self.call_times[0])
        first, last = self.call_times
        y = cond.anchor if path.is_bridge else None
        return ddim(Step(path, taught.start, taught.first, first, last, lambda: noise, y))

    def validation_times(self, index: Tensor) -> Tensor:
        """The time that gives the sample, for every pair."""
        return torch.full_like(index, self.call_times[-1])


def student_config(teacher: TrainedModel, steps: int, calls: int, overrides: Sequence[str] = ()) -> Config:
    """The teacher's configuration with the training and sampling of a student; overrides as in ``load_config``."""
    if calls not in (1, 2):
        raise UserError(f"calls: found {calls}, expected 1 or 2")
    data = teacher.config.model_dump(mode="json")
    data["name"] = f"{data['name']}-{calls}-call{'s' if calls > 1 else ''}"
    data["training"] |= {
        "initial_weights": None,
        "max_tsteps": steps,
        "learning_rate": SLOWER * data["training"]["learning_rate"],
        "lr_decay": "cosine",
        "warmup": steps // 20,
        "start_fraction": START_FRACTION if calls > 1 else 0.0,
        "ema_warmup": True,  # a short run is not to end at its start
        "val_every": min(250, steps),
        "checkpoint_every": min(100, steps),
        "picture_every": 0,
    }
    sampling = {"estimate": "sample", "solver": "ddim", "eta": 0.0, "steps": calls, "start_from": "noise"}
    data["sampling"] |= sampling | {"start_level": None, "times": None}
    config = parse_config(data, overrides, where=teacher.where)
    if config.model != teacher.config.model:
        raise UserError("model: found settings other than the teacher's, expected its own (its weights are the start)")
    return config


def distill(
    teacher: TrainedModel,
    out: str | Path,
    config: Config,
    *,
    teacher_steps: int = 10,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train a student of ``teacher`` into the folder ``out`` and return the path of its last checkpoint.

    config: from ``student_config``; where it has no ``sampling.times``, they are chosen and written into it.
    teacher_steps: calls of the teacher for an image. All else as ``training.run.train``. Raises UserError.
    """
    out = Path(out)
    with run_folder(config, out, "distill"):
        start = starting_point(config, out, resume)
        guide = Teacher(teacher, teacher_steps)
        if start is not None and read_ckpt(start).get("cdm4mi", {}).get("distilled_from") != teacher.weight_hash:
            found = f"{start}, which is not a student of {teacher.where}"
            raise UserError(field="resume", found=found, expected="the teacher that it began with")
        data = PairData(config)
        if config.sampling.times is None:
            config.sampling.times = chosen_times(teacher, data, config.sampling.steps)
        path = teacher.process.path
        times = given_times(config.sampling.times, path)
        if len(times) > 2 or (len(times) == 2 and times[0] != path.timesteps - 1):
            raise UserError(f"sampling.times: found {times}, expected one time, or {path.timesteps - 1} and another")
        config.sampling.steps = len(times)
        network = copy.deepcopy(teacher.network).requires_grad_(True).train()
        module = DistilledDDPM(config, network, guide, times)
        about = About(
            version=__version__,
            data=data.summary.after(teacher.about.data),
            distilled_from=teacher.weight_hash,
            teacher_steps=teacher_steps,
        )
        section = checkpoint_section(config, about, None if teacher.regression is None else teacher.regression.config)
        return fit(module, data, config, out, section, start=start, progress=progress)


def chosen_times(teacher: TrainedModel, data: PairData, calls: int) -> list[int]:
    """The student's times: of two the first is the noisy end; the last by ``MIDDLE`` and the validation levels."""
    process = teacher.process
    levels = torch.cat([batch["sigma"] for batch in data.val_dataloader()])
    spread = float(levels.square().mean().sqrt()) if process.sigma_r is None else process.sigma_r
    last = process.path.timesteps - 1
    middle = min(start_time(process.path, MIDDLE * spread), last - 1)
    return [middle] if calls == 1 else [last, middle]
