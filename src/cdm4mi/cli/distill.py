"""``cdm4mi distill CHECKPOINT``: a model that samples in two network calls, or one, from a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdm4mi.cli.terminal import echo
from cdm4mi.files import below


def distill(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="the teacher: a checkpoint, a run's folder, or shipped")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings over the teacher's, as paths=/data")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/NAME-2-calls)")] = None,
    steps: Annotated[int, typer.Option(min=1, help="training steps of the student")] = 1000,
    calls: Annotated[int, typer.Option(min=1, max=2, help="network calls of the student for a sample")] = 2,
    teacher_steps: Annotated[int, typer.Option(min=1, help="network calls of the teacher for a sample")] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that was stopped, or begin it")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="show a progress bar")] = True,
) -> None:
    """Teach a model to draw in one or two network calls the samples that a trained one draws in many."""
    from cdm4mi.models.checkpoint import load_model
    from cdm4mi.training.distill import distill as run_distillation
    from cdm4mi.training.distill import student_config
    from cdm4mi.training.processes import is_first

    teacher = load_model(checkpoint)
    config = student_config(teacher, steps, calls, overrides or [])
    folder = out or below(Path("runs"), config.name)
    last = run_distillation(teacher, folder, config, teacher_steps=teacher_steps, resume=resume, progress=progress)
    if not is_first():
        return
    times = ", ".join(map(str, config.sampling.times or []))
    echo(f"student: {last}, one sample in {config.sampling.steps} network call(s), at times {times}")
    echo(f"best:    {last.with_name('best.ckpt')}")
    echo(f"next:    cdm4mi denoise SCAN OUT --model {folder}")
